"""What a request may ask of this engine, and what OpenVINO is told for it. Refuses what it cannot give."""

from __future__ import annotations

import dataclasses
import difflib
from typing import NamedTuple

from pydantic import Field, ValidationError

from tokbench.arithmetic.precision import INT4_GROUP
from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.record.facts import Frozen

OPENVINO_NAMES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "u8"}
"""Our types as OpenVINO's properties write them."""


class Options(Frozen):
    """`engine.options`; None leaves it to what the weights' type asks for."""

    max_batch_tokens: int | None = Field(default=None, ge=1)
    """Tokens in one forward pass, of prompts and of answers together; None is the library's own, 256."""
    kv_dtype: str | None = None
    """float32, bfloat16, float16 or int8; None is the type that activations have."""
    dynamic_quantization_group: int = Field(default=0, ge=0)
    """Beside int8 and int4 weights, activations are quantised to int8 in groups of so many; 0 leaves them alone."""


class Precision(NamedTuple):
    """How one `model.dtype` is had: what the weights are converted to, and in which type is computed."""

    weight_format: str
    """As `optimum-cli export openvino` calls it."""
    arguments: tuple[str, ...]
    """What else the conversion is told."""
    inference: str
    """In which type is computed, in our words."""


# A converted file holds no bfloat16: OpenVINO converts float32 to it while compiling. Beside quantised weights is
# computed in float32, as the other engines do on a CPU.
PRECISIONS = {
    "float32": Precision("fp32", (), "float32"),
    "bfloat16": Precision("fp32", (), "bfloat16"),
    "float16": Precision("fp16", (), "float16"),
    "int8": Precision("int8", (), "float32"),
    "int4": Precision("int4", ("--group-size", str(INT4_GROUP), "--ratio", "1.0"), "float32"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What this engine is asked for, checked."""

    precision: Precision
    options: Options
    kv_dtype: str
    threads: int

    def properties(self) -> dict[str, str | int]:
        """What OpenVINO is told; left to itself it computes in bfloat16 with an 8-bit cache where the CPU can."""
        return {
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": OPENVINO_NAMES[self.precision.inference],
            "KV_CACHE_PRECISION": OPENVINO_NAMES[self.kv_dtype],
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.options.dynamic_quantization_group,
        }


def read_request(request: EngineRequest) -> Asked:
    """Check a request before anything is loaded.

    Raises:
        PlugError: what this engine does not have, and what to write instead.
    """
    engine, dtype = request.engine, request.model.dtype
    if request.device != "cpu":
        raise PlugError(f"engine 'openvino' does not run on {request.device} here", fix="write device: cpu")
    if request.weights_folder is None:
        raise PlugError(
            "engine 'openvino' converts weights that lie on this disk, and random ones do not",
            fix="weights: pretrained with hf:, path: or pypi:, or another engine",
        )
    for name, value in (("attention", engine.attention), ("experts", engine.experts)):
        if value is not None:
            raise PlugError(f"engine.{name}: OpenVINO chooses its kernels itself", fix=f"leave engine.{name} out")
    if dtype not in PRECISIONS:
        raise PlugError(f"model.dtype: engine 'openvino' has no {dtype}", fix=f"one of: {', '.join(PRECISIONS)}")
    options = read_options(engine.options)
    kv_dtype = options.kv_dtype or PRECISIONS[dtype].inference
    if kv_dtype not in OPENVINO_NAMES:
        raise PlugError(
            f"engine.options.kv_dtype: there is no cache in {kv_dtype!r}", fix=f"one of: {', '.join(OPENVINO_NAMES)}"
        )
    return Asked(PRECISIONS[dtype], options, kv_dtype, request.threads)


def read_options(given: dict[str, str | int | float | bool]) -> Options:
    """Options from the config.

    Raises:
        PlugError: a key or a value that this engine does not know.
    """
    known = tuple(Options.model_fields)
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            raise PlugError(
                f"engine.options: engine 'openvino' has no option {key!r}", fix=f"{hint}options: {', '.join(known)}"
            )
    try:
        return Options.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise PlugError(f"engine.options.{key}: {first['msg']}", fix="see docs/design/openvino.md") from None
