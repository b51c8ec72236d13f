"""Published figures: `rows` reads and checks them, `beside` sets a number of ours next to them."""

from tokbench.derive.published.beside import (
    MAX_OPEN,
    PER_STREAM_METRICS,
    SIZE_CLASS,
    Absence,
    Comparison,
    Match,
    Measured,
    NoComparison,
    Shortfall,
    compare_with_published,
)
from tokbench.derive.published.evidence import PERIOD_DAYS
from tokbench.derive.published.harness import find_harness_efficiency
from tokbench.derive.published.listing import list_harness
from tokbench.derive.published.periods import PublishedRange
from tokbench.derive.published.rows import METRIC_UNITS, PRECISION_BITS, PublishedFigure, load_published
from tokbench.derive.published.sheet import first_day
from tokbench.derive.published.systems import device_of, is_per_device, model_key

__all__ = [
    "MAX_OPEN",
    "METRIC_UNITS",
    "PERIOD_DAYS",
    "PER_STREAM_METRICS",
    "PRECISION_BITS",
    "SIZE_CLASS",
    "Absence",
    "Comparison",
    "Match",
    "Measured",
    "NoComparison",
    "PublishedFigure",
    "PublishedRange",
    "Shortfall",
    "compare_with_published",
    "device_of",
    "find_harness_efficiency",
    "first_day",
    "is_per_device",
    "list_harness",
    "load_published",
    "model_key",
]
