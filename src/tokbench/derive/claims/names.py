"""One table from the names that published rows and the claims' experiments use to the names of our metrics.

It says which quantity is meant, never how it is had: the metrics' own catalogue does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tokbench.derive.claims.dimensions import Dimension, read_unit
from tokbench.derive.claims.values import unknown
from tokbench.derive.metrics import catalog
from tokbench.derive.published.rows import METRIC_UNITS

METRIC_NAMES: Final[Mapping[str, str]] = {
    "tps_user": "decode_tokens_per_s",
    "tps_device": "output_tokens_per_s_per_device",
    "tps_system": "output_tokens_per_s",
    "TTFT": "ttft_s",
    "TPOT": "tpot_s",
    "J_per_token": "energy_j_per_output_token",
    "MBU": "bandwidth_used_ratio",
    "MFU": "flops_used_ratio",
    "nominal_MBU": "nominal_bandwidth_used_ratio",
    "nominal_MFU": "nominal_flops_used_ratio",
    "alpha": "acceptance_alpha",
    "tau": "tokens_per_step",
    "c": "draft_cost_ratio",
    "v_m": "verify_cost_ratio",
    "S": "speedup_x",
    "output_tokens_per_second_per_user": "decode_tokens_per_s",
    "system_output_tokens_per_second": "output_tokens_per_s",
    "joules_per_token": "energy_j_per_output_token",
    "power_watts": "mean_power_w",
    "ttft_seconds": "ttft_s",
    "end_to_end_seconds": "e2e_latency_s",
}
"""Names of the claims' tables, then those of the published rows as they came in; ours may be written as they are."""


def published_metric(name: str) -> str:
    """The metric of published rows that a claim names.

    Raises:
        RuleError: published rows have no such metric.
    """
    return _known(METRIC_NAMES.get(name, name), METRIC_UNITS, name)


def published_dimension(metric: str) -> Dimension:
    """The dimension of a metric of published rows."""
    return read_unit(METRIC_UNITS[metric].symbol).dimension


def measured_metric(name: str, awaited: Mapping[str, str]) -> str:
    """The metric of our own cells that a claim names; `awaited` holds those that no version computes yet.

    Raises:
        RuleError: it is neither.
    """
    return _known(METRIC_NAMES.get(name, name), {**catalog(), **awaited}, name)


def measured_unit(metric: str, awaited: Mapping[str, str]) -> str:
    """The unit of a metric of ours, as text."""
    found = catalog().get(metric)
    return awaited[metric] if found is None else found.unit.symbol


def _known(metric: str, known: Mapping[str, object], written: str) -> str:
    if metric in known:
        return metric
    raise unknown("metric", written, known)
