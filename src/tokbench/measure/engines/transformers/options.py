"""What `engine.options` may say to this engine. Unknown keys and values are refused, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from tokbench.errors import PlugError

BACKENDS = ("inductor", "aot_eager", "eager")
PREFILLS = ("auto", "always", "never")
CUTS = ("none", "tensor", "pipeline")
ROUTINGS = ("own", "uniform", "zipf", "correlated")
MAX_EXPONENT = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of one engine; all are of the mode `compiled` that do not say otherwise."""

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
    """On a CPU, write a float32 linear layer of few rows as a loop over its weights (streamed.py says how many)."""
    cut: str = "none"
    """Hold the model in two processes of one CPU, mode eager: cut through every layer (`tensor`) or between layers
    (`pipeline`); their link can be given a delay (links.py, experiment `link`)."""
    routing: str = "own"
    """`uniform`, `zipf` or `correlated` draws which experts a token goes to, in any mode (experts_drawn.py)."""
    routing_skew: float = 0.0
    """Of `zipf`, the exponent; of `correlated`, the probability that a token takes the experts of the one before."""
    resident_experts: float = 1.0
    """Share of each layer's experts that lies on the device, mode eager; the rest is copied there (offload.py)."""


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
    _refuse_unknown("cut", options.cut, CUTS)
    _refuse_unknown("routing", options.routing, ROUTINGS)
    _check_experts(options)
    if options.prefill_chunk < 0:
        raise PlugError(
            f"engine.options.prefill_chunk: {options.prefill_chunk} is less than 0", fix="0 takes the whole prompt"
        )
    return options


def _check_experts(options: Options) -> None:
    skew, share = options.routing_skew, options.resident_experts
    if skew != 0 and options.routing not in ("zipf", "correlated"):
        raise PlugError(
            f"engine.options.routing_skew: routing {options.routing!r} has no skew", fix="routing: zipf or correlated"
        )
    if not 0 <= skew <= (1 if options.routing == "correlated" else MAX_EXPONENT):
        raise PlugError(
            f"engine.options.routing_skew: {skew:g} is out of range",
            fix=f"zipf: an exponent from 0 to {MAX_EXPONENT}; correlated: a probability from 0 to 1",
        )
    if not 0 <= share <= 1:
        raise PlugError(
            f"engine.options.resident_experts: {share:g} is no share", fix="from 0 (one place a layer) to 1 (all)"
        )


def _refuse_unknown(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise PlugError(f"engine.options.{name}: there is no {value!r}", fix=f"known: {', '.join(known)}")
