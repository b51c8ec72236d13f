"""PyTorch through transformers' model classes: driven by loops of our own, or by transformers' continuous batching.

Modes: `eager` (dynamic cache, plain PyTorch), `compiled` (static cache, one graph with the argmax inside; on a GPU
captured into a CUDA graph), both without `generate` and without a host sync per token; `continuous` (requests that come
and go, a paged cache, transformers' own scheduler). cuda, rocm (torch built with HIP), cpu and mps take the same path.
"""

from __future__ import annotations

from tokbench.measure.engines import EngineDescription, EngineRequest, RequestEngine, StepEngine
from tokbench.measure.engines.transformers.drafting import METHODS

DESCRIPTION = EngineDescription(
    kind="transformers",
    what="transformers' model classes under tokbench's own decode loop, or transformers' continuous batching",
    modes=("eager", "compiled", "continuous"),
    request_modes=("continuous",),
    parallel_modes=("eager", "compiled"),
    drafting=tuple(METHODS),
    drafting_modes=("eager", "compiled"),
    devices=("cuda", "rocm", "cpu", "mps"),
    packages=("torch", "transformers", "accelerate", "safetensors"),
    extra="local",
)


def open_engine(request: EngineRequest) -> StepEngine | RequestEngine:
    """Load the weights and be ready to prepare cells, or to take requests.

    Raises:
        PlugError: what was asked for cannot be had with these packages.
        TrialError: the weights do not fit.
    """
    if request.engine.mode == "continuous":
        from tokbench.measure.engines.transformers.continuous import ContinuousEngine  # torch

        return ContinuousEngine(request)
    is_cut = request.engine.options.get("cut", "none") != "none"
    if is_cut or len(request.devices) > 1:
        from tokbench.measure.engines.transformers.split_engine import open_split  # torch

        return open_split(request)
    from tokbench.measure.engines.transformers.engine import TransformersEngine  # torch

    return TransformersEngine(request)
