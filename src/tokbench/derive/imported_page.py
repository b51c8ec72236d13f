"""An import as a Document for the console: conditions, who stated them, metrics, what is missing. Computes nothing."""

from __future__ import annotations

import dataclasses

from tokbench.derive import wording
from tokbench.derive.imported import Imported, ImportedCell, ImportedMetric, Origin, estimate_of
from tokbench.derive.report.document import (
    DASH,
    Block,
    Cell,
    Column,
    Document,
    Paragraph,
    Section,
    Table,
    bullets,
)
from tokbench.derive.words import join, mark, say, t

ORIGINS: dict[Origin, str] = {
    "file": mark("the file"),
    "tool": mark("the way in which the tool measures"),
    "user": mark("you (--given)"),
}
NOT_TELLING = frozenset({"tests"})
"""Settings that say what was run, and not how."""


def imported_document(imported: Imported, file: str) -> Document:
    """Every cell with its conditions and metrics."""
    opening = t(
        "{file}: cells of {tool}: {count}. Another tool measured them: tokbench saw no raw stamps and judges no "
        "validity.",
        file=_clean(file),
        count=len(imported.cells),
        tool=imported.tool,
    )
    sections = [Section(t("What was read"), (Paragraph(opening), *_process_note(imported)))]
    sections += [Section(_clean(_title(cell, imported)), _blocks(cell)) for cell in imported.cells]
    return Document(t("Imported results"), tuple(sections))


def _title(cell: ImportedCell, imported: Imported) -> str:
    """The key, with the settings that tell cells of one key apart."""
    others = [other.settings for other in imported.cells if other.key == cell.key]
    telling = [
        f"{name} {value}"
        for name, value in cell.settings.items()
        if any(other.get(name) != value for other in others) and name not in NOT_TELLING
    ]
    return f"{cell.key} ({', '.join(telling)})" if telling else cell.key


def _process_note(imported: Imported) -> tuple[Block, ...]:
    if not any(len(metric.values) > 1 for cell in imported.cells for metric in cell.metrics):
        return ()
    text = t("An interval is of repetitions inside one process and leaves out what varies from process to process.")
    return (Paragraph(text),)


def _blocks(cell: ImportedCell) -> tuple[Block, ...]:
    blocks: list[Block] = [bullets(*_conditions(cell), *_settings(cell))]
    rows = [_row(metric) for metric in cell.metrics]
    rows += [_missing_row(name, reason) for name, reason in cell.missing.items()]
    blocks.append(
        Table(
            (
                Column(t("metric")),
                Column(t("value"), align="right"),
                Column(t("95 % interval"), align="right"),
                Column("n", align="right"),
                Column(t("statistic")),
            ),
            tuple(rows),
        )
    )
    if cell.notes:
        blocks.append(bullets(*(_clean(say(note)) for note in cell.notes)))
    return tuple(blocks)


def _conditions(cell: ImportedCell) -> list[str]:
    """A line per party that states conditions, and one of what nobody states."""
    values = dataclasses.asdict(cell.conditions)
    lines = []
    for origin, who in ORIGINS.items():
        names = [name for name in values if cell.origins.get(name) == origin]
        if names:
            stated = join(f"{name} {values[name]}" for name in names)
            lines.append(_clean(t("stated by {who}: {conditions}", who=t(who), conditions=stated)))
    unstated = [name for name, value in values.items() if value is None]
    if unstated:
        lines.append(t("not stated: {conditions}", conditions=join(unstated)))
    return lines


def _settings(cell: ImportedCell) -> list[str]:
    if not cell.settings:
        return []
    stated = join(f"{name} {value}" for name, value in cell.settings.items())
    return [_clean(t("also in the file: {settings}", settings=stated))]


def _row(metric: ImportedMetric) -> tuple[Cell, ...]:
    shown = estimate_of(metric)
    interval = DASH
    if shown.low is not None and shown.high is not None and metric.n > 1:
        interval = wording.say_range(shown)
    return (
        Cell(metric.name),
        Cell(wording.say_value(shown)),
        Cell(interval),
        Cell(str(metric.n)),
        Cell(shown.statistic.replace("_", " ")),
    )


def _missing_row(name: str, reason: str) -> tuple[Cell, ...]:
    return (Cell(name), Cell(DASH, note=_clean(say(reason))), Cell(DASH), Cell(DASH), Cell(DASH))


def _clean(text: str) -> str:
    """Without control characters, which a foreign file may hold and a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)
