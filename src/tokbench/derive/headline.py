"""The five sentences that open a report and end a run on the console. Never suggests like for like where it is not."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult, Missing, Results
from tokbench.derive.published import Comparison, NoComparison, PublishedFigure
from tokbench.derive.standing import PER_USER, SYSTEM, Beside, Standing, estimate_of, take_standing


def headline(results: Sequence[Results], figures: Sequence[PublishedFigure], vendors: Sequence[str]) -> tuple[str, ...]:
    """Best speed per user, best system speed, memory, and one sentence for each vendor."""
    return lines_of(results, take_standing(results, figures, vendors), vendors)


def lines_of(results: Sequence[Results], standing: Standing, vendors: Sequence[str]) -> tuple[str, ...]:
    """The same from a standing that is already there."""
    if standing.fastest is None:
        return (_say_nothing(results),)
    return (
        _say_speed("Fastest for one user", standing.fastest, PER_USER, "decode"),
        _say_speed("Most for all users together", standing.busiest, SYSTEM, "output"),
        _say_memory(standing.fastest),
        *(say_beside(standing.nearest(vendor), vendor) for vendor in vendors),
    )


def console_lines(
    results: Sequence[Results], figures: Sequence[PublishedFigure], vendors: Sequence[str]
) -> tuple[str, ...]:
    """What ends a run on the console: speed per user, system speed, memory, and all vendors in one line."""
    standing = take_standing(results, figures, vendors)
    lines = lines_of(results, standing, ())
    if standing.fastest is None:
        return lines
    beside = [_say_briefly(standing.nearest(vendor), vendor) for vendor in vendors]
    return (*lines, f"{'; '.join(beside)}.") if beside else lines


def _say_briefly(item: Beside | None, vendor: str) -> str:
    name = wording.say_vendor(vendor)
    if item is None or isinstance(item.outcome, NoComparison):
        return f"{name}: no figure to set beside"
    figure, comparison = item.outcome.theirs, item.outcome
    model = wording.short_model(figure.model) if figure.model else "its machine"
    likeness = wording.say_likeness(comparison)
    apart = f"{wording.say_counts(comparison)}{f'; {likeness}' if likeness else ''}"
    value = wording.say_published(figure)
    return f"{name} publishes {value} for {model} ({figure.published}), {wording.say_factor(comparison)} ({apart})"


def _say_nothing(results: Sequence[Results]) -> str:
    cells = [cell for item in results for cell in item.cells]
    reasons = list(dict.fromkeys(cell.status_reason for cell in cells if cell.status_reason))
    why = f": {reasons[0]}" + (f" (and {len(reasons) - 1} more reasons)" if len(reasons) > 1 else "") if reasons else ""
    return f"No decode speed was measured in {len(cells)} cells{why}."


def _say_speed(title: str, cell: CellResult | None, metric: str, what: str) -> str:
    value = estimate_of(cell, metric)
    if cell is None or value is None:
        return f"{title}: not measured."
    doubt = wording.say_doubt(cell)
    text = f"{title}: {wording.say_value(value)} {what} ({wording.say_interval(value)}): {wording.say_cell(cell)}"
    return f"{text}, on {cell.conditions.hardware or 'unknown hardware'}{f' [{doubt}]' if doubt else ''}."


def _say_memory(cell: CellResult) -> str:
    values = {name: cell.metrics.get(name) for name in ("peak_memory_bytes", "weight_bytes")}
    parts = []
    for name, title in (("peak_memory_bytes", "peak"), ("weight_bytes", "weights")):
        value = values[name]
        reason = value.reason if isinstance(value, Missing) else "not a metric of this version"
        known = estimate_of(cell, name)
        parts.append(f"{title} {wording.say_value(known)}" if known else f"{title} not known ({reason})")
    source = wording.say_memory_source(cell) if estimate_of(cell, "peak_memory_bytes") is not None else ""
    return f"Memory of that cell: {parts[0]}{f' {source}' if source else ''}, {parts[1]}: {wording.say_model(cell)}."


def say_beside(item: Beside | None, vendor: str) -> str:
    """One number of ours beside one vendor's, in one sentence."""
    name = wording.say_vendor(vendor)
    if item is None:
        return f"{name}: no comparison: nothing of ours was set beside its figures."
    if isinstance(item.outcome, NoComparison):
        return f"{name}: no comparison: {item.outcome.reason}."
    comparison = item.outcome
    ours = f"{wording.say_value(comparison.ours)} with {wording.say_model(item.cell)}, {wording.say_load(item.cell)}"
    likeness = wording.say_likeness(comparison)
    return (
        f"{name} publishes {_say_figure(comparison)}: {wording.say_factor(comparison)}, which is {ours}; "
        f"{wording.say_counts(comparison)}{f'; {likeness}' if likeness else ''}."
    )


def _say_figure(comparison: Comparison) -> str:
    figure = comparison.theirs
    value = wording.say_published(figure)
    speculation = ", with speculative decoding" if figure.speculation not in (None, "none") else ""
    second_hand = "" if figure.is_primary else ", read second-hand"
    model = wording.short_model(figure.model) if figure.model else "its machine"
    who = f"{wording.say_measurer(figure.measured_by)}, {figure.published}"
    return f"{value} for {model} ({who}{speculation}; {wording.say_site(figure.source_url)}{second_hand})"
