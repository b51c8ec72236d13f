"""Energy: joules per token, gross and net, how they were metered, and what they leave out. Computes no joule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tokbench.derive.energy.agreement import AGREEMENT_LIMIT, is_apart
from tokbench.derive.energy.domains import Group
from tokbench.derive.energy.rows import EnergyRow
from tokbench.derive.energy.windows import BOUND_LIMIT, Bound, Span, Without
from tokbench.derive.evaluate import CellResult
from tokbench.derive.report.document import DASH, Block, Cell, Column, Paragraph, Section, Table, bullets
from tokbench.derive.report.fields import cell_columns, cell_fields, metric_column, metric_field
from tokbench.derive.report.material import Material
from tokbench.derive.words import join, mark, say, t
from tokbench.units import JOULES_PER_TOKEN, SECONDS, WATTS, format_number, format_value

PER_TOKEN = ("energy_j_per_output_token", "net_energy_j_per_output_token", "energy_j_per_prompt_token")
POWERS = ("mean_power_w", "idle_power_w", "output_tokens_per_j")
LEFT_OUT = {
    "board": mark(
        "The rest of the machine is in none of these numbers: host CPU and memory, other cards, fans, the power "
        "supply's losses, cooling."
    ),
    "boards": mark(
        "The rest of the machine is in none of these numbers: host CPU and memory, fans, the power supply's losses, "
        "cooling."
    ),
    "module": mark(
        "The module's numbers hold the CPU on it; fans, the power supply's losses and cooling are left out."
    ),
    "package": mark(
        "Memory, disks, fans, the power supply's losses and cooling are in none of these numbers; all else that ran on "
        "the package is."
    ),
    "node part": mark(
        "Disks, boards, fans, the power supply's losses and cooling are in none of these numbers; all else that ran on "
        "the processor is."
    ),
    "node": mark("The building's cooling and the losses before the machine are left out."),
    "wall": mark("The building's cooling is left out."),
    "script": mark("A script gave these numbers: they are of no machine."),
}

METHODS = {"counter": mark("counter"), "integrated": mark("integrated")}
IDLE_METHODS = {"counter": mark("from the counter"), "integrated": mark("from power readings, integrated")}
AND = mark(" and ")


def energy_sections(material: Material) -> list[Section]:
    """Joules per token and how they were had; where there are none, why, and what would help."""
    if not material.measured:
        return []
    metered = [cell for cell in material.measured if cell.energy.headline]
    blocks: list[Block] = [Paragraph(text) for text in _why_not(material)]
    if metered:
        blocks += [_per_token(metered, material), *material.figure("energy.png"), _metering(metered, material)]
        blocks += [bullets(*_notes(metered)), *_others(metered, material)]
    return [Section(t("Energy"), tuple(blocks))]


def _why_not(material: Material) -> list[str]:
    """One sentence for each reason why cells of a run have no energy."""
    counts: dict[tuple[str, str], int] = {}
    for cell in material.measured:
        if not cell.energy.headline:
            key = (cell.run_name, cell.energy.missing or t("no energy trial of this cell came to its end"))
            counts[key] = counts.get(key, 0) + 1
    total = {item.name: sum(cell.status == "ok" for cell in item.cells) for item in material.results}
    return [
        _say_absence(run, reason, None if count == total[run] else count) for (run, reason), count in counts.items()
    ]


def _say_absence(run: str, reason: str, count: int | None) -> str:
    """Why a run has no energy; `count` of its cells where others have some."""
    why = say(reason).rstrip(".。")
    if count is None:
        return t("{run}: no energy, because {reason}.", run=run, reason=why)
    return t("{run}: no energy of {count} cells, because {reason}.", run=run, count=count, reason=why)


def _per_token(cells: Sequence[CellResult], material: Material) -> Table:
    titles = (t("Per output token, gross"), t("Per output token, net of idle"), t("Per prompt token, gross"))
    heads = [metric_column(name, title) for name, title in zip(PER_TOKEN, titles, strict=True)]
    heads += [metric_column(name) for name in POWERS]
    rows = tuple(
        (*cell_fields(cell, material.has_several_runs), *(metric_field(cell, name) for name in (*PER_TOKEN, *POWERS)))
        for cell in cells
    )
    caption = t(
        "Of all streams together. Gross holds idle power, net does not. A static batch decodes again and "
        "again in a window of its own, and prefills in another; requests are metered while every slot is "
        "busy, their prefills included, and no request has joules of its own."
    )
    return Table((*cell_columns(), *heads), rows, caption)


def _metering(cells: Sequence[CellResult], material: Material) -> Table:
    columns = (
        *cell_columns(),
        Column(t("Scope")),
        Column(t("Source")),
        Column(t("Windows"), "n", "right"),
        Column(t("Window"), "", "right"),
        Column(t("Counter moves every"), "", "right"),
        Column(t("Bound, decode"), "%", "right"),
        Column(t("Bound, prefill"), "%", "right"),
        Column(t("Over second source"), "", "right"),
        Column(t("Temperature"), "°C", "right"),
        Column(t("Clock events")),
        Column(t("Power limit"), "W", "right"),
    )
    rows = tuple(_metering_row(cell, material) for cell in cells)
    caption = t(
        "Energy lies between the first and the last tick of the counter inside the window, work is counted "
        "between the same two. The bound is what the counter's steps leave open, at most {limit:g} % "
        "or said why; it is not the sensor's accuracy. The largest of all windows is shown.",
        limit=100 * BOUND_LIMIT,
    )
    return Table(columns, rows, caption)


def _metering_row(cell: CellResult, material: Material) -> tuple[Cell, ...]:
    rows = cell.energy.headline
    group, spans = rows[0].group, [row.output for row in rows]
    heat = [row.around.temperature_c for row in rows if row.around.temperature_c is not None]
    events = [row.around.clock_events for row in rows if row.around.clock_events is not None]
    named = dict.fromkeys(reason for reasons in events for reason in reasons)
    limit = rows[-1].power_limit_w
    return (
        *cell_fields(cell, material.has_several_runs),
        Cell(_say_scope(group)),
        _source_field(group, spans),
        Cell(str(len(rows)), sort=float(len(rows))),
        _longest(spans, lambda span: span.window_s),
        _longest(spans, lambda span: span.period_s),
        _bound_field(spans),
        _bound_field([row.prefill for row in rows]),
        _agreement_field(rows),
        Cell(f"{min(low for low, _ in heat):g} – {max(high for _, high in heat):g}") if heat else _unread(),
        Cell(", ".join(named) or t("none")) if events else _unread(),
        _unread() if limit is None else Cell(format_number(limit), sort=limit),
    )


def _unread() -> Cell:
    return Cell(DASH, note=t("not read here"))


def _say_scope(group: Group) -> str:
    return f"{group.scope}: {group.name}"


def _source_field(group: Group, spans: Sequence[Span | Without]) -> Cell:
    named = ", ".join(dict.fromkeys(domain.source for domain in group.domains))
    methods = dict.fromkeys(span.method for span in spans if isinstance(span, Span))
    estimated = t(", estimated") if any(domain.is_estimated for domain in group.domains) else ""
    notes = "; ".join(dict.fromkeys(domain.note for domain in group.domains if domain.note))
    how = join(say(METHODS[method]) for method in methods) or t("nothing")
    text = t("{source} ({methods}{estimated})", source=f"{group.meter} {named}", methods=how, estimated=estimated)
    return Cell(text, note=notes or None)


def _longest(spans: Sequence[Span | Without], value: Callable[[Span], float | None]) -> Cell:
    found = [number for span in spans if isinstance(span, Span) and (number := value(span)) is not None]
    if not found:
        return Cell(DASH, note=_first_reason(spans) or t("power was integrated: there is no counter"))
    return Cell(format_value(max(found), SECONDS), sort=max(found))


def _first_reason(spans: Sequence[Span | Without]) -> str | None:
    return next((say(span.reason) for span in spans if isinstance(span, Without)), None)


def _bound_field(spans: Sequence[Span | Without]) -> Cell:
    """The largest bound; the note says why it is above the limit, or why there is none."""
    bounds = [(span.bound.total, span) for span in spans if isinstance(span, Span) and isinstance(span.bound, Bound)]
    if not bounds:
        lacking = next(
            (say(s.bound.reason) for s in spans if isinstance(s, Span) and isinstance(s.bound, Without)), None
        )
        return Cell(DASH, note=lacking or _first_reason(spans))
    most, span = max(bounds, key=lambda pair: pair[0])
    return Cell(format_number(100 * most, 2), sort=most, note=span.why_wide and say(span.why_wide))


def _agreement_field(rows: Sequence[EnergyRow]) -> Cell:
    found = [ratio for row in rows if not isinstance(ratio := row.agreement, Without)]
    if not found:
        reasons = [say(ratio.reason) for row in rows if isinstance(ratio := row.agreement, Without)]
        return Cell(DASH, note=reasons[0])
    farthest = max(found, key=lambda ratio: abs(ratio - 1))
    note = (
        t("the sources disagree: more than {limit:g} % apart", limit=100 * AGREEMENT_LIMIT)
        if is_apart(farthest)
        else None
    )
    return Cell(format_number(farthest, 4), sort=farthest, note=note)


def _notes(cells: Sequence[CellResult]) -> Iterator[str]:
    scopes = dict.fromkeys(cell.energy.headline[0].group.scope for cell in cells)
    yield from dict.fromkeys(t(LEFT_OUT[scope]) for scope in scopes)
    idles = [row.idle for cell in cells for row in cell.energy.headline]
    methods = dict.fromkeys(span.method for span in idles if isinstance(span, Span))
    if methods:
        yield t(
            "Idle power is that with the model loaded and nothing running, measured before the work ({methods}); "
            "it depends on how warm the device is.",
            methods=join((t(IDLE_METHODS[method]) for method in methods), AND),
        )
    yield t("Power limits and clocks are read, never set.")


def _others(cells: Sequence[CellResult], material: Material) -> list[Block]:
    """What else was metered beside the rows above: never added to them."""
    rows = [
        (*cell_fields(cell, material.has_several_runs), *_other_fields(row))
        for cell in cells
        for row in cell.energy.rows
        if row.group != cell.energy.headline[0].group
    ]
    if not rows:
        return []
    columns = (
        *cell_columns(),
        Column(t("Scope")),
        Column(t("Mean power"), "W", "right"),
        Column(t("Idle power"), "W", "right"),
        Column(t("Per output token, gross"), "", "right"),
    )
    return [
        Table(columns, tuple(rows), t("Other domains that were metered meanwhile. They are not added to the above."))
    ]


def _other_fields(row: EnergyRow) -> tuple[Cell, ...]:
    return (
        Cell(f"{row.group.meter} {_say_scope(row.group)}"),
        _number_field(row.output, lambda span: format_value(span.mean_w, WATTS).removesuffix(" W")),
        _number_field(row.idle, lambda span: format_value(span.mean_w, WATTS).removesuffix(" W")),
        _number_field(row.output, lambda span: format_value(span.joules / span.tokens, JOULES_PER_TOKEN)),
    )


def _number_field(span: Span | Without, word: Callable[[Span], str]) -> Cell:
    return Cell(DASH, note=say(span.reason)) if isinstance(span, Without) else Cell(word(span))
