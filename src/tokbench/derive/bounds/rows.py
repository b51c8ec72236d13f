"""Memory against its prediction, settings against one another, a pass against itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokbench.derive.bounds.found import Choice, MemoryRow, RepeatRow
from tokbench.derive.bounds.points import alike_but_for, value_of
from tokbench.derive.evaluate import CellResult, Missing
from tokbench.derive.pairs import paired_ratio
from tokbench.derive.words import t
from tokbench.stats import Estimate, exact

SPEED = "decode_tokens_per_s"
CHOICES = (("engine", "attention"), ("engine", "experts"), ("model", "dtype"))


def find_memory(cells: Sequence[CellResult]) -> Iterator[MemoryRow]:
    """Every cell that was measured or ran out of memory."""
    for cell in cells:
        if cell.status not in ("ok", "oom"):
            continue
        readings = [*cell.record.memory, *(reading for trial in cell.record.trials for reading in trial.memory)]
        yield MemoryRow(
            cell=cell,
            predicted_bytes=cell.record.planned.predicted_memory_bytes,
            peak_bytes=value_of(cell, "peak_memory_bytes"),
            steady_bytes=value_of(cell, "steady_memory_bytes"),
            is_whole_process=bool(readings) and all(reading.source.startswith("rss") for reading in readings),
        )


def find_choices(cells: Sequence[CellResult]) -> Iterator[Choice]:
    """Measured cells that differ in one kernel, option or precision alone, fastest first."""
    found = [(cell, speed) for cell in cells if cell.status == "ok" and (speed := value_of(cell, SPEED))]
    measured = [cell for cell, _ in sorted(found, key=lambda item: -item[1])]
    names = sorted({name for cell in measured for name in cell.record.spec.engine.options})
    for path in (*CHOICES, *(("engine", "options", name) for name in names)):
        for group in alike_but_for(measured, *path):
            if len(group) > 1:
                yield _choice(path, group)


def _choice(path: tuple[str, ...], group: list[CellResult]) -> Choice:
    best = group[0]
    size = value_of(best, "bytes_read_per_step")
    sizes = [value_of(cell, "bytes_read_per_step") for cell in group]
    return Choice(
        run_name=best.run_name,
        setting=".".join(path),
        cells=tuple(group),
        values=tuple(_setting(cell, path) for cell in group),
        slowdowns=tuple(_slowdown(best, cell) for cell in group),
        byte_ratios=tuple(None if size is None or other is None else size / other for other in sizes),
    )


def _slowdown(best: CellResult, cell: CellResult) -> Estimate | Missing:
    if cell is best:
        return exact(1.0, "")
    found, values = paired_ratio(best, cell, SPEED), (value_of(best, SPEED), value_of(cell, SPEED))
    if isinstance(found, Missing) and values[0] and values[1]:
        return exact(values[0] / values[1], "")  # no block holds both: a ratio without an interval
    return found


def _setting(cell: CellResult, path: tuple[str, ...]) -> str:
    """The value as the config gave it; what the engine chose where it gave none."""
    branch = cell.record.spec.model_dump(mode="json")
    for name in path[:-1]:
        branch = branch[name]
    value = branch.get(path[-1])
    if value is None and path[-1] == "attention":
        return t("{kernel} (the engine's choice)", kernel=cell.conditions.attention_kernel)
    return t("left out") if value is None else str(value)


def find_repeats(cells: Sequence[CellResult]) -> Iterator[RepeatRow]:
    """Every comparison of a pass with itself."""
    for cell in cells:
        for event in cell.record.repeats:
            yield RepeatRow(
                cell=cell,
                against=event.against,
                steps=event.steps,
                tokens_equal=event.tokens_equal,
                states_equal=event.states_equal,
                max_abs_difference=event.max_abs_difference,
            )
