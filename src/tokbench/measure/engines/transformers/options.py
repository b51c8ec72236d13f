"""What `engine.options` may say to this engine. Unknown keys and values are refused, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from tokbench.errors import PlugError

BACKENDS = ("inductor", "aot_eager", "eager")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of one engine, all of the mode `compiled`."""

    compile_backend: str = "inductor"
    """What torch.compile hands the graph to; `aot_eager` and `eager` generate no code: for tests of the loop."""
    coordinate_descent: bool = True
    """On a GPU, let inductor search block sizes, and write products with one row as one pass over the weights.

    Source: gpt-fast, generate.py (`coordinate_descent_tuning = True`); torch 2.13, _inductor/decomposition.py, `bmm`:
    only so is the gather of `batched_mm` fused into its product.
    """
    device_graph: bool = True
    """On a GPU, capture the compiled step into a CUDA or HIP graph."""


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
    if options.compile_backend not in BACKENDS:
        raise PlugError(
            f"engine.options.compile_backend: there is no {options.compile_backend!r}",
            fix=f"backends: {', '.join(BACKENDS)}",
        )
    return options
