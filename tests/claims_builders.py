"""Makes claims, evidence and sampled inputs for tests of the claims' engine. Reads no clock, and no row but by name."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tokbench.derive.claims.dimensions import PLAIN, Dimension
from tokbench.derive.claims.evidence import Evidence, Resolved
from tokbench.derive.claims.input_rows import AssumedNumber, Input
from tokbench.derive.claims.intervals import Interval, point
from tokbench.derive.claims.judge import judge
from tokbench.derive.claims.resolving import resolve_inputs
from tokbench.derive.claims.rows import ClaimRow
from tokbench.derive.claims.values import Cause, Lacking, Quantity, Rest, Series, Truth, Value
from tokbench.derive.claims.verdicts import ClaimVerdict

TODAY = datetime.date(2026, 11, 22)
TEXTS = {
    "topic": "hardware",
    "priority": 1,
    "document": "000.txt",
    "statement": "Said.",
    "statement_zh": "说过。",
    "attributed_to": "Somebody",
    "kind": "arithmetic",
    "against": {"en": "Much.", "zh": "很多。"},
    "rules_before": {"supports_if": "before", "refutes_if": "before", "why": "because"},
}


def number(unit: str = "1", **ends: float) -> dict[str, object]:
    """An input that is a number of ours: `value`, or `low`, `mid` and `high`."""
    return {"number": {**ends, "unit": unit, "why": "for a test"}}


def claim(
    inputs: Mapping[str, object], supports_if: str = "x > 1", refutes_if: str = "x < 1", **fields: object
) -> ClaimRow:
    """A claim with one part."""
    rules = {} if "parts" in fields else {"supports_if": supports_if, "refutes_if": refutes_if}
    return ClaimRow.model_validate({"id": "some-claim", **TEXTS, "inputs": inputs, **rules, **fields})


def verdict_on(row: ClaimRow, evidence: Evidence, today: datetime.date = TODAY) -> ClaimVerdict:
    """The verdict on one claim."""
    return judge(row, resolve_inputs(row, evidence), today)


def evidence_of(**parts: object) -> Evidence:
    """Evidence of nothing but what is given."""
    empty: dict[str, object] = {
        "figures": (),
        "facts": {},
        "prices": {},
        "devices": {},
        "models": {},
        "awaited": {},
        "results": (),
    }
    return Evidence(**{**empty, **parts})  # type: ignore[arg-type]


def judged(value: Value, supports_if: str = "x > 1", refutes_if: str = "x < 1", **fields: object) -> ClaimVerdict:
    """The verdict on a claim over one input `x` of any value."""
    row = claim({"x": number(value=1.0)}, supports_if, refutes_if, **fields)
    resolved = Resolved("x", Input(number=AssumedNumber(value=1.0, why="for a test")), value, "1")
    return judge(row, {"x": resolved}, TODAY)


def band(low: float, high: float, dimension: Dimension = PLAIN, sources: int = 2, *, counted: bool = True) -> Quantity:
    """A number between two ends that so many independent sources give."""
    rests = frozenset(Rest("x", f"source {index}", counted) for index in range(sources))
    return Quantity(Interval(low, (low + high) / 2, high), dimension, rests)


def lacking(dimension: Dimension = PLAIN, axis: str | None = None, *, can_be_had: bool = True) -> Lacking:
    """A number that is not there."""
    return Lacking(dimension, axis, frozenset({Cause("x", "not measured", can_be_had)}))


def sample_inputs(
    wanted: Mapping[str, Resolved], scales: Mapping[Dimension, tuple[float, ...]], seed: int
) -> Iterator[dict[str, Value]]:
    """Endless draws of values for a claim's inputs, of their dimension and near the sizes that its rules speak of."""
    dice = random.Random(seed)
    while True:
        yield {name: sample_value(item, scales, dice) for name, item in wanted.items()}


def sample_value(item: Resolved, scales: Mapping[Dimension, tuple[float, ...]], dice: random.Random) -> Value:
    """One draw: the input's own value, one close to it, or one far off; a series follows a power of its key."""
    own = item.value
    if isinstance(own, Truth | Quantity) and (isinstance(own, Truth) or dice.random() < 0.4):
        return own
    if not isinstance(own, Quantity | Series | Lacking):
        raise TypeError(f"{item.name} has no such value")
    base = abs(own.interval.mid) if isinstance(own, Quantity) and own.interval.mid else None
    sizes = [size for size in (*scales.get(own.dimension, ()), base) if size] or [1.0]
    size = 0.0 if dice.random() < 0.1 else dice.choice(sizes) * _factor(dice)
    axis = own.axis if isinstance(own, Series | Lacking) else None
    if axis is None:
        return Quantity(point(size), own.dimension, _rest(item, "all"))
    is_axis = item.row.measured is not None and item.row.measured.metric in (axis, f"condition.{axis}")
    power = dice.choice((0.5, 1.0, 1.0, 2.0)) if is_axis else dice.uniform(-2.0, 2.0)
    keys = ("1", "4", "16", "64")
    values = [(1.0 if is_axis else size) * float(key) ** power for key in keys]
    if not is_axis and axis not in ("static_batch", "context_tokens"):
        values = [size] * len(keys) if dice.random() < 0.5 else [size * _factor(dice) for _ in keys]
    entries = tuple((key, point(value), _rest(item, key)) for key, value in zip(keys, values, strict=True))
    return Series(axis, entries, own.dimension)


def scan_inputs(base: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
    """Every input in turn made smaller and larger, in steps of 7 %, until it passes whatever narrow region there is."""
    for name in base:
        for step in range(-140, 141):
            yield {**base, name: times(base[name], 1.07**step)}


def near_inputs(base: Mapping[str, Value], seed: int, count: int = 40) -> Iterator[dict[str, Value]]:
    """Draws around one point."""
    dice = random.Random(seed)
    for _ in range(count):
        width = dice.choice((0.01, 0.1, 1.0))
        yield {name: times(value, 1 + width * dice.uniform(-0.9, 0.9)) for name, value in base.items()}


def times(value: Value, factor: float) -> Value:
    """A number or a series, so many times as large."""
    if isinstance(value, Quantity):
        return Quantity(point(value.interval.mid * factor), value.dimension, value.rests)
    if isinstance(value, Series):
        entries = tuple((key, point(own.mid * factor), rests) for key, own, rests in value.entries)
        return Series(value.axis, entries, value.dimension)
    return value


def _factor(dice: random.Random) -> float:
    draw: Callable[[], float] = dice.choice(
        (
            lambda: 1.0,
            lambda: dice.uniform(0.95, 1.05),
            lambda: dice.uniform(0.2, 4.0),
            lambda: 10 ** dice.uniform(-4.0, 4.0),
        )
    )
    return draw()


def _rest(item: Resolved, key: str) -> frozenset[Rest]:
    return frozenset(Rest(item.name, f"{key} {index}", False) for index in range(2))


def write_rows(folder: Path, text: str) -> Path:
    """A file of claims."""
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file
