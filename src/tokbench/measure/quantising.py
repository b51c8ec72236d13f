"""What must be there to quantise weights while they are loaded: told before any device is touched, without torch."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from tokbench.arithmetic import QUANTISATIONS
from tokbench.errors import PlugError
from tokbench.record.spec import ModelSpec

EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")
"""How configs call the routed experts of a layer; in a dense model they are absent, null or 0."""


def check_quantising(model: ModelSpec, name: str, config: Mapping[str, object], devices: int = 1) -> None:
    """Refuse a model that cannot be had in the quantised type it is asked for; every other type passes.

    `config`: the model's own, empty where it is not known.

    Raises:
        PlugError: a GGUF is to run as it is, torchao is missing, experts are routed, the weights are stored quantised
            already, or the model is split over several devices.
    """
    if model.dtype == "gguf":
        raise PlugError(
            "transformers dequantises a GGUF: it cannot run it as it is",
            fix="model.dtype=float32, or engine.kind=llama_cpp",
        )
    if model.dtype not in QUANTISATIONS:
        return
    try:
        importlib.metadata.version("torchao")
    except importlib.metadata.PackageNotFoundError:
        raise PlugError(
            f"weights in {model.dtype} need the package `torchao`, not installed here",
            fix="pip install 'tokbench[quant]'",
        ) from None
    if any(config.get(key) for key in EXPERT_KEYS):
        raise PlugError(
            f"the routed experts of {name} cannot be had in {model.dtype}: transformers holds them in stacked"
            " matrices, and torchao quantises linear layers",
            fix="model.dtype=bfloat16, or mxfp4 where the weights are stored so",
        )
    if "quantization_config" in config and model.weights == "pretrained":
        raise PlugError(
            f"the weights of {name} are stored quantised already, and cannot be quantised to {model.dtype} again",
            fix="name the repository of the original weights",
        )
    if devices > 1:
        raise PlugError(
            f"weights that are quantised to {model.dtype} while loading cannot be split over {devices} devices",
            fix="model.dtype=bfloat16, or name one device",
        )
