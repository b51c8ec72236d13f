"""Energy rows as plain values, for `summary.json`; its shape is in docs/summary-json.md. A value without is missing."""

from __future__ import annotations

from tokbench.derive.energy.agreement import Second
from tokbench.derive.energy.rows import CellEnergy, EnergyRow
from tokbench.derive.energy.windows import Bound, Span, Without


def list_energy(energy: CellEnergy) -> dict[str, object]:
    """Every row of a cell; `missing` where none speaks for it."""
    rows = [{**_row(row), "is_headline": row in energy.headline} for row in energy.rows]
    return {"rows": rows} if energy.headline else {"rows": rows, "missing": energy.missing}


def _row(row: EnergyRow) -> dict[str, object]:
    low, high = row.around.temperature_c or (None, None)
    return {
        "trial_id": row.trial_id,
        "meter": row.group.meter,
        "domains": [domain.domain for domain in row.group.domains],
        "scope": row.group.scope,
        "sources": list(dict.fromkeys(domain.source for domain in row.group.domains)),
        "is_estimated": any(domain.is_estimated for domain in row.group.domains),
        "notes": [domain.note for domain in row.group.domains if domain.note is not None],
        "output": _span(row.output),
        "prefill": _span(row.prefill),
        "idle": _span(row.idle),
        "net_j_per_output_token": _known(row.net_j_per_output_token),
        "agreement": _known(row.agreement),
        "temperature_low_c": low,
        "temperature_high_c": high,
        "clock_events": None if row.around.clock_events is None else list(row.around.clock_events),
        "power_limit_w": row.power_limit_w,
    }


def _span(span: Span | Without) -> dict[str, object]:
    if isinstance(span, Without):
        return {"missing": span.reason}
    work: dict[str, object] = {"tokens": span.tokens, "j_per_token": span.joules / span.tokens} if span.tokens else {}
    return {
        **work,
        "joules": span.joules,
        "seconds": span.seconds,
        "mean_w": span.mean_w,
        "window_s": span.window_s,
        "method": span.method,
        "period_s": span.period_s,
        "bound": _bound(span.bound),
        "why_wide": span.why_wide,
        "second": _second(span.second),
    }


def _bound(bound: Bound | Without) -> dict[str, object]:
    if isinstance(bound, Without):
        return {"missing": bound.reason}
    return {"total": bound.total, "ticks": bound.ticks, "cuts": bound.cuts}


def _second(second: Second | Without) -> dict[str, object]:
    if isinstance(second, Without):
        return {"missing": second.reason}
    return {"source": second.source, "joules": second.joules}


def _known(value: float | Without) -> object:
    return {"missing": value.reason} if isinstance(value, Without) else value
