"""The prices that a run is reckoned with: those of its config. It knows no price of its own."""

from __future__ import annotations

import functools
from pathlib import Path

from pydantic import ValidationError

from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.errors import SpecError
from tokbench.record.cost import CostSpec
from tokbench.record.run import Run
from tokbench.record.store import CONFIG_FILE
from tokbench.record.yaml_tree import read_tree


def prices_of(run: Run) -> CostSpec:
    """What the reader put in its place, else what the record's config states under `cost:`, if anything.

    Raises:
        UndefinedError: the config is gone or its prices cannot be read.
    """
    if run.prices is not None:
        return run.prices
    path = run.folder / CONFIG_FILE
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError:
        raise UndefinedError(t("the record's {file}, which holds the prices, is gone", file=CONFIG_FILE)) from None


@functools.lru_cache(maxsize=32)
def _read(path: Path, _changed_at_ns: int) -> CostSpec:
    """One config, read once: every cost of every cell asks for it."""
    try:
        tree = read_tree(path)
        stated = tree.value.get("cost") if isinstance(tree.value, dict) else None
        return CostSpec() if stated is None else CostSpec.model_validate(stated)
    except SpecError as error:
        raise UndefinedError(
            t("the record's {file} cannot be read: {fault}", file=CONFIG_FILE, fault=error.message)
        ) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(("cost", *map(str, first["loc"])))
        raise UndefinedError(
            t(
                "the record's {file} states no price at {place}: {fault}",
                file=CONFIG_FILE,
                place=place,
                fault=first["msg"],
            )
        ) from None
