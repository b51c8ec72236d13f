"""What `engine.options` may say in the mode `continuous`. Unknown keys and values are refused, never ignored."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from tokbench.errors import PlugError

SCHEDULERS = ("fifo", "prefill_first")
MIN_PAGE_SIZE = 4
"""Source: transformers 5.23, generation/continuous_batching/initialization.py, `BOUNDS`."""


@dataclasses.dataclass(frozen=True, slots=True)
class ContinuousOptions:
    """The options of one engine; None leaves it to tokbench on a CPU, to transformers elsewhere."""

    page_size: int = 256
    """Tokens in a page of the cache; a request takes whole pages."""
    num_blocks: int | None = None
    """Pages that the cache holds, counted over all layers at once."""
    max_batch_tokens: int | None = None
    """Tokens in one forward pass: of prompts and of requests that decode, together."""
    scheduler: str = "fifo"
    """Who comes first: requests that decode (`fifo`), or prompts that are worked on in parts (`prefill_first`)."""


_TYPES: dict[str, type[int] | type[str]] = {
    "page_size": int,
    "num_blocks": int,
    "max_batch_tokens": int,
    "scheduler": str,
}


def read_continuous_options(given: Mapping[str, str | int | float | bool]) -> ContinuousOptions:
    """Options from the config.

    Raises:
        PlugError: a key or a value that this engine does not know.
    """
    for key, value in given.items():
        _check(key, value)
    options = dataclasses.replace(ContinuousOptions(), **given)  # type: ignore[arg-type]  # checked above
    if options.scheduler not in SCHEDULERS:
        raise PlugError(
            f"engine.options.scheduler: there is no {options.scheduler!r}", fix=f"schedulers: {', '.join(SCHEDULERS)}"
        )
    return options


def _check(key: str, value: str | int | float | bool) -> None:
    if key not in _TYPES:
        near = difflib.get_close_matches(key, _TYPES, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise PlugError(
            f"engine.options: engine 'transformers' in mode 'continuous' has no option {key!r}",
            fix=f"{hint}options: {', '.join(_TYPES)}",
        )
    if type(value) is not _TYPES[key]:
        raise PlugError(f"engine.options.{key}: {value!r} is not a {_TYPES[key].__name__}", fix="see tokbench engines")
    smallest = MIN_PAGE_SIZE if key == "page_size" else 1
    if isinstance(value, int) and value < smallest:
        raise PlugError(f"engine.options.{key}: {value} is too small", fix=f"{smallest} or more")
