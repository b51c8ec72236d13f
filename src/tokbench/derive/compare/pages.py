"""A comparison as a Document, which the console and Markdown print alike. Computes no number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.compare.join import Single
from tokbench.derive.compare.result import Compared, Pair, Row, Verdict
from tokbench.derive.compare.sides import TOKBENCH
from tokbench.derive.compare.thresholds import Held
from tokbench.derive.evaluate import Missing
from tokbench.derive.metrics import METRICS_VERSION
from tokbench.derive.report.document import (
    DASH,
    Block,
    Bullets,
    Cell,
    Column,
    Document,
    Item,
    Paragraph,
    Section,
    Table,
    bullets,
)
from tokbench.derive.words import mark, t
from tokbench.record.facts import Difference
from tokbench.stats import MIN_BLOCKS, Estimate
from tokbench.units import format_number

DRIFT = mark(
    "A and B were measured at different times, so nothing is paired: drift of the machine between them "
    "(temperature, clocks, other load) is not in the intervals."
)
PAIRED = mark("A and B are cells of one run and paired by its blocks: what drifts under both cancels.")
IN_PROCESS = mark(
    "Where n counts repetitions, the interval holds what varies inside a process and not from process to process: "
    "{processes} or more processes on each side would show that."
)
COLUMNS = (
    Column("metric"),
    Column("A", align="right"),
    Column("B", align="right"),
    Column("B over A", align="right"),
    Column("95 % interval", align="right"),
    Column("B is"),
    Column("n"),
)
BOUND = Column("bound")


def compared_document(compared: Compared) -> Document:
    """The whole comparison, every pair and every cell without a partner."""
    shared = _shared(compared.pairs)
    sections = [Section("What is compared", _opening(compared, shared))]
    for pair in compared.pairs:
        sections.append(Section(_clean(pair.match.a.name), _pair(pair, shared, has_bounds=bool(compared.thresholds))))
    singles = [_single("A", single) for single in compared.only_a]
    singles += [_single("B", single) for single in compared.only_b]
    if singles:
        sections.append(Section("Without a partner", (Bullets(tuple(singles)),)))
    return Document("B compared with A", tuple(sections))


def notes(compared: Compared) -> tuple[str, ...]:
    """What a reader has to know of every interval."""
    found = [t(PAIRED) if compared.is_one_run else t(DRIFT)]
    if any(row.basis == "repetitions" for pair in compared.pairs for row in pair.rows):
        found.append(t(IN_PROCESS, processes=MIN_BLOCKS))
    if compared.a.path == compared.b.path:
        found.append(t("A and B are the same: any difference would be a fault of tokbench."))
    if compared.a.kind != compared.b.kind:
        found.append(
            t(
                "A is of {a}, B of {b}: each tool took its own stamps and formed its own means.",
                a=compared.a.kind,
                b=compared.b.kind,
            )
        )
    elif compared.a.kind == TOKBENCH:
        same = t(
            "Both sides are computed from raw stamps with the same formulas (version {version}).",
            version=METRICS_VERSION,
        )
        found.append(same)
    return tuple(found)


def say_verdict(compared: Compared) -> str:
    """The result in one sentence."""
    rows = [row for pair in compared.pairs for row in pair.rows]
    if compared.verdict is Verdict.BROKEN:
        broken = Counter(row.threshold.text for row in rows if row.threshold and row.held is Held.BROKEN)
        shown = [f"{text} ({count} of {len(compared.pairs)} pairs)" for text, count in broken.items()]
        return f"Broken: {', '.join(shown)}."
    if compared.verdict is Verdict.UNLIKE:
        refused = sum(bool(pair.refused) for pair in compared.pairs)
        if not refused:
            return "Nothing could be compared: no cell of A has a partner in B with a result."
        what = "1 pair is" if refused == 1 else f"{refused} pairs are"
        return f"Refused: {what} not like for like; --force compares all the same, with what differs beside it."
    open_rows = sum(row.held is Held.CANNOT_TELL for row in rows)
    left = len(compared.only_a) if compared.thresholds else 0
    if open_rows or left:
        texts = [f"{open_rows} of {sum(row.held is not None for row in rows)} bounded values cannot be told"]
        texts = texts if open_rows else []
        texts += [f"cells of A without a partner: {left}"] if left else []
        return f"No bound is shown to be broken, but: {'; '.join(texts)}."
    bounds = "1 bound" if len(compared.thresholds) == 1 else f"{len(compared.thresholds)} bounds"
    return f"{bounds} held in every pair." if compared.thresholds else "No bound was asked for (--fail-on)."


def _opening(compared: Compared, shared: Sequence[Difference]) -> tuple[Block, ...]:
    is_bad = compared.verdict is not Verdict.PASSED
    differing = f"Differs in every pair (A → B): {_listed(shared)}." if shared else "Nothing differs in every pair."
    sides = bullets(
        *(
            f"{letter}: {_clean(side.path)} ({_clean(side.kind)}, {len(side.cells)} cells)"
            for letter, side in (("A", compared.a), ("B", compared.b))
        )
    )
    return (
        Paragraph(_clean(say_verdict(compared)), "warning" if is_bad else "lead"),
        sides,
        Paragraph(f"{differing} A ratio is of all that differs together."),
        bullets(*notes(compared)),
    )


def _shared(pairs: Sequence[Pair]) -> tuple[Difference, ...]:
    if not pairs:
        return ()
    first, *others = (pair.match.differences for pair in pairs)
    return tuple(row for row in first if all(row in rows for rows in others))


def _pair(pair: Pair, shared: Sequence[Difference], *, has_bounds: bool) -> tuple[Block, ...]:
    match = pair.match
    own = [row for row in match.differences if row not in shared]
    also = " beside what differs in every pair" if shared else ""
    blocks: list[Block] = []
    if match.a.name != match.b.name:
        blocks.append(Paragraph(f"B: {_clean(match.b.name)}."))
    if own or len(shared) < 1:
        blocks.append(Paragraph(f"Differs{also} (A → B): {_listed(own)}." if own else "No stated condition differs."))
    for letter, subject in (("A", match.a), ("B", match.b)):
        if subject.verdict in ("suspect", "invalid") and not pair.refused:
            blocks.append(Paragraph(f"{letter} is {subject.verdict}: {'; '.join(subject.doubts)}.", "warning"))
    if not pair.is_measured:
        blocks.append(Paragraph(_clean(f"Neither side has a result: {match.a.no_result} · {match.b.no_result}.")))
    if pair.refused:
        blocks.append(Paragraph(_clean(f"Refused: {'; '.join(pair.refused)}."), "warning"))
    if pair.rows:
        columns = (*COLUMNS, BOUND) if has_bounds else COLUMNS
        blocks.append(Table(columns, tuple(_row(row, has_bounds=has_bounds) for row in pair.rows)))
    return tuple(blocks)


def _row(row: Row, *, has_bounds: bool) -> tuple[Cell, ...]:
    interval = DASH
    if isinstance(row.ratio, Estimate) and row.ratio.low is not None and row.ratio.high is not None:
        interval = f"{format_number(row.ratio.low, 4)} to {format_number(row.ratio.high, 4)}"
    cells = (
        Cell(row.metric),
        _value(row.a),
        _value(row.b),
        Cell(DASH, note=_clean(row.ratio.reason)) if isinstance(row.ratio, Missing) else Cell(_say_ratio(row.ratio)),
        Cell(interval),
        Cell(row.outcome),
        Cell(_say_n(row)),
    )
    if not has_bounds:
        return cells
    if row.threshold is None or row.held is None:
        return (*cells, Cell(DASH))
    return (*cells, Cell(f"{row.threshold.text.partition(':')[2]} {row.held.value}"))


def _value(value: Estimate | Missing) -> Cell:
    return Cell(wording.say_value(value), note=_clean(value.reason) if isinstance(value, Missing) else None)


def _say_ratio(ratio: Estimate) -> str:
    return f"{format_number(ratio.value, 4)} ({(ratio.value - 1) * 100:+.1f} %)"


def _say_n(row: Row) -> str:
    unit = {"exact": "exact", "none": ""}.get(row.basis, "repetitions" if row.basis == "repetitions" else "blocks")
    return unit if row.basis == "exact" else f"{row.n_a} and {row.n_b} {unit}".rstrip()


def _listed(rows: Sequence[Difference]) -> str:
    return "; ".join(_clean(f"{row.field} {_stated(row.ours)} → {_stated(row.theirs)}") for row in rows)


def _stated(value: str | int | None) -> str:
    text = "not stated" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _single(letter: str, single: Single) -> Item:
    subject = single.subject
    ended = f" ({subject.no_result})" if subject.no_result is not None else ""
    return Item(_clean(f" {subject.name}{ended}: {single.why}"), lead=f"{letter}:")


def _clean(text: str) -> str:
    """Without control characters, which a foreign file may hold and a terminal would obey."""
    return "".join(char if char.isprintable() else " " for char in text)
