"""Harness efficiency as plain data for summary.json, in English whatever the language of the report."""

from __future__ import annotations

from tokbench.derive.published.beside import Comparison, NoComparison


def list_harness(harness: Comparison | NoComparison | None) -> dict[str, object]:
    """`value`, `low`, `high`, the `figure` and what is `unlike`, or `missing` with the reason."""
    if harness is None:
        return {"missing": "the cell has no such speed"}
    if isinstance(harness, NoComparison):
        return {"missing": harness.reason}
    return {
        "value": harness.ours_over_theirs,
        "low": harness.ours_over_theirs_low,
        "high": harness.ours_over_theirs_high,
        "metric": harness.metric,
        "figure": harness.theirs.id,
        "unlike": list(harness.unlike),
    }
