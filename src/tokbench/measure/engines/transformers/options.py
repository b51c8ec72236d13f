"""What `engine.options` may say to this engine. Unknown keys and values are refused, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from tokbench.errors import PlugError

BACKENDS = ("inductor", "aot_eager", "eager")
PREFILLS = ("auto", "always", "never")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of one engine; all but `prefill_chunk` are of the mode `compiled`."""

    compile_backend: str = "inductor"
    """What torch.compile hands the graph to; `aot_eager` and `eager` generate no code: for tests of the loop."""
    coordinate_descent: bool = True
    """On a GPU, let inductor search block sizes, and write products with one row as one pass over the weights.

    Source: gpt-fast, generate.py (`coordinate_descent_tuning = True`); torch 2.13, _inductor/decomposition.py, `bmm`:
    only so is the gather of `batched_mm` fused into its product.
    """
    device_graph: bool = True
    """On a GPU, capture the compiled step into a CUDA or HIP graph."""
    compile_prefill: str = "auto"
    """Compile the prefill too: `always`, `never`, or `auto`: on a GPU where prompts are short (loops.py)."""
    prefill_chunk: int = 0
    """Prompt tokens per row that one forward pass of the prefill takes; 0: all of them."""
    time_attention: bool = True
    """On a GPU, time our attention kernels over each cell's cache and take the fastest (attention_choice.py)."""
    stream_weights: bool = True
    """On a CPU, write a float32 linear layer with one row as a loop over its weights (streamed.py)."""


def read_options(given: Mapping[str, str | int | float | bool]) -> Options:
    """Options from the config.

    Raises:
        PlugError: a key or a value that this engine does not know.
    """
    known = {field.name: type(field.default) for field in dataclasses.fields(Options)}
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`? " if near else ""
            raise PlugError(
                f"engine.options: engine 'transformers' has no option {key!r}", fix=f"{hint}options: {', '.join(known)}"
            )
        if type(value) is not known[key]:
            raise PlugError(
                f"engine.options.{key}: {value!r} is not a {known[key].__name__}", fix="see tokbench engines"
            )
    options = dataclasses.replace(Options(), **given)  # type: ignore[arg-type]  # names and types were checked above
    _refuse_unknown("compile_backend", options.compile_backend, BACKENDS)
    _refuse_unknown("compile_prefill", options.compile_prefill, PREFILLS)
    if options.prefill_chunk < 0:
        raise PlugError(
            f"engine.options.prefill_chunk: {options.prefill_chunk} is less than 0", fix="0 takes the whole prompt"
        )
    return options


def _refuse_unknown(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise PlugError(f"engine.options.{name}: there is no {value!r}", fix=f"known: {', '.join(known)}")
