"""Inputs that rest on one row: numbers of the claim and of ours, facts, devices, rents, closed forms of models.

A row that is not there is an error of the claim; a field that no source states is lacking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tokbench import arithmetic
from tokbench.arithmetic import ModelShape
from tokbench.derive.claims.dimensions import ReadUnit, read_unit
from tokbench.derive.claims.evidence import Evidence, Resolved, Source
from tokbench.derive.claims.input_rows import Band, Input, ModelQuantity, StatedQuantity
from tokbench.derive.claims.intervals import Interval, middle, point
from tokbench.derive.claims.values import (
    Cause,
    Lacking,
    Quantity,
    Rest,
    RuleError,
    Series,
    State,
    Truth,
    Value,
    unknown,
)
from tokbench.derive.published.evidence import site_of
from tokbench.derive.published.facts import Fact
from tokbench.derive.words import t
from tokbench.record.catalog import DeviceRow

ASSUMED: Final = "our assumption"
"""Label of a number of ours that no page stands behind."""
RENT_UNIT: Final = "USD/h"
_FIELD_UNITS: Final[Mapping[str, str]] = {
    "_gbps": "GB/s",
    "_gb": "GB",
    "_mb": "MB",
    "_watts": "W",
    "_usd": "USD",
    "_year": "year",
    "_mm2": "mm2",
    "_nm": "nm",
    "transistors_b": "billion",
}
_PEAK: Final = "peak_tflops."


def unit_or_fault(text: str) -> ReadUnit:
    """Read a unit. Raises: RuleError where it is none."""
    try:
        return read_unit(text)
    except ValueError as error:
        raise RuleError(str(error)) from None


def scaled(interval: Interval, unit: ReadUnit) -> Interval:
    """An interval in base units."""
    return Interval(*(end * unit.factor for end in interval))


def resolve_stated(name: str, row: Input, quantities: Mapping[str, StatedQuantity]) -> Resolved:
    """A number that the claim states.

    Raises:
        RuleError: it states none of that name, or only words.
    """
    wanted = row.quantity or ""
    if wanted not in quantities:
        raise unknown("quantity", wanted, quantities)
    stated = quantities[wanted]
    if stated.words is not None:
        raise RuleError(f"the claim gives {wanted} in words alone ({stated.words!r}): no rule can use it")
    return _of_band(name, row, stated, Source("claim", wanted, _band(stated), stated.unit))


def resolve_number(name: str, row: Input) -> Resolved:
    """An assumption or definition of ours."""
    if row.number is None:
        raise RuleError("not a number")
    labels = () if row.number.source_url else (ASSUMED,)
    url, unit = row.number.source_url, row.number.unit
    source = Source("assumption", row.number.why, _band(row.number), unit, url=url, labels=labels)
    return _of_band(name, row, row.number, source)


def resolve_fact(name: str, row: Input, evidence: Evidence) -> Resolved:
    """A fact, or several facts of one number: the range over their sources.

    Raises:
        RuleError: no such fact, part or readable unit, or units that differ.
    """
    wanted = row.fact if isinstance(row.fact, tuple) else (row.fact or "",)
    if isinstance(row.fact, str) and row.fact in evidence.facts and isinstance(evidence.facts[row.fact].value, bool):
        return _resolve_truth(name, row, evidence.facts[row.fact])
    found = [_read_fact(one, row.unit, evidence) for one in wanted]
    units = [unit_or_fault(source.unit) for source in found]
    if len({unit.dimension for unit in units}) > 1:
        raise RuleError(f"the facts have unlike units: {', '.join(source.unit or '1' for source in found)}")
    own = [scaled(source.interval, unit) for source, unit in zip(found, units, strict=True) if source.interval]
    interval = Interval(min(i.low for i in own), middle([i.mid for i in own]), max(i.high for i in own))
    rests = frozenset(Rest(name, source.key, True) for source in found)
    return Resolved(name, row, Quantity(interval, units[0].dimension, rests), found[0].unit, tuple(found))


def resolve_rent(name: str, row: Input, evidence: Evidence) -> Resolved:
    """The rent of a device per hour: the market's edges around the usual offer."""
    wanted = row.price or ""
    if wanted not in evidence.prices:
        if wanted in evidence.devices:
            return _lacking(name, row, RENT_UNIT, t("no rent of {device} is known", device=wanted))
        raise unknown("price", wanted, {**evidence.prices, **evidence.devices})
    price = evidence.prices[wanted]
    offers = [offer for offer in (price.low, price.mid, price.high) if offer is not None]
    sources = tuple(
        Source(
            offer.provider,
            f"{wanted}, {offer.provider}",
            point(offer.usd_per_hour),
            RENT_UNIT,
            by=offer.provider,
            date=offer.published,
            read_on=offer.read_on,
            url=offer.source_url,
            title=offer.source_title,
            is_vendor=True,
        )
        for offer in offers
    )
    interval = Interval(offers[0].usd_per_hour, price.mid.usd_per_hour, offers[-1].usd_per_hour)
    unit = unit_or_fault(RENT_UNIT)
    rests = frozenset(Rest(name, source.key, True) for source in sources)
    return Resolved(name, row, Quantity(scaled(interval, unit), unit.dimension, rests), RENT_UNIT, sources)


def resolve_device(name: str, row: Input, evidence: Evidence) -> Resolved:
    """A field of a device's row.

    Raises:
        RuleError: no such device or field.
    """
    device, field = _find_device(row.device or "", evidence)
    is_peak = field.startswith(_PEAK)
    fields = device.peak_tflops.model_dump() if is_peak else device.model_dump()
    key = field.removeprefix(_PEAK)
    if key not in fields:
        raise unknown(f"field of {device.name}", field, [*DeviceRow.model_fields, *(f"{_PEAK}{one}" for one in fields)])
    suffix = next((suffix for suffix in _FIELD_UNITS if key.endswith(suffix)), "")
    unit_text, value = "TFLOP/s" if is_peak else _FIELD_UNITS.get(suffix, "1"), fields[key]
    if value is None:
        return _lacking(
            name, row, unit_text, t("no source states {field} of {device}", field=field, device=device.name)
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RuleError(f"{field} of {device.name} is no number")
    unit = unit_or_fault(unit_text)
    read_on = str(device.read_on) if device.read_on else None
    source = Source(device.name, f"{device.name}, {field}", point(float(value)), unit_text, read_on=read_on)
    value_of = Quantity(scaled(point(float(value)), unit), unit.dimension, frozenset({Rest(name, device.name, False)}))
    return Resolved(name, row, value_of, unit_text, (_with_url(source, device),))


def resolve_model(name: str, row: Input, evidence: Evidence) -> Resolved:
    """A closed form of a model, one number or a series over rows or contexts.

    Raises:
        RuleError: no such model or quantity, or sizes that make no sense.
    """
    asked = row.model if isinstance(row.model, ModelQuantity) else _split_model(row.model or "", evidence)
    if asked.name not in evidence.models:
        raise unknown("model", asked.name, evidence.models)
    if asked.quantity not in QUANTITIES:
        raise unknown("quantity of a model", asked.quantity, QUANTITIES)
    model = evidence.models[asked.name]
    unit_text, form = QUANTITIES[asked.quantity]
    unit, rests = unit_or_fault(unit_text), frozenset({Rest(name, asked.name, False)})
    source = Source(model.name, f"{model.name}, {asked.quantity}", None, unit_text, url=model.source_url)

    def compute(rows: int, context_tokens: int) -> Interval:
        try:
            return scaled(point(float(form(model.shape, asked.dtype or "", rows, context_tokens))), unit)
        except ValueError as error:
            raise RuleError(f"{asked.name}, {asked.quantity}: {error}") from None

    value: Value
    if isinstance(asked.rows, tuple):
        context = asked.context_tokens if isinstance(asked.context_tokens, int) else 0
        entries = tuple((str(rows), compute(rows, context), rests) for rows in asked.rows)
        value = Series("static_batch", entries, unit.dimension)
    elif isinstance(asked.context_tokens, tuple):
        entries = tuple((str(size), compute(asked.rows, size), rests) for size in asked.context_tokens)
        value = Series("context_tokens", entries, unit.dimension)
    else:
        value = Quantity(compute(asked.rows, asked.context_tokens), unit.dimension, rests)
    return Resolved(name, row, value, unit_text, (source,))


def _experts(shape: ModelShape, *, is_per_token: bool) -> int:
    if shape.experts is None:
        raise ValueError("it has no experts")
    return shape.experts.experts_per_token if is_per_token else shape.experts.experts


Form = Callable[[ModelShape, str, int, int], float]
QUANTITIES: Final[Mapping[str, tuple[str, Form]]] = {
    "parameters": ("parameters", lambda s, d, r, c: arithmetic.count_parameters(s).total),
    "active_parameters": ("parameters", lambda s, d, r, c: arithmetic.count_parameters(s).active),
    "read_parameters": ("parameters", lambda s, d, r, c: arithmetic.count_parameters(s).read_per_token),
    "layers": ("layers", lambda s, d, r, c: s.layers),
    "hidden": ("1", lambda s, d, r, c: s.hidden),
    "heads": ("1", lambda s, d, r, c: s.heads),
    "kv_heads": ("1", lambda s, d, r, c: s.kv_heads),
    "head_dim": ("1", lambda s, d, r, c: s.head_dim),
    "vocab": ("1", lambda s, d, r, c: s.vocab),
    "experts": ("experts", lambda s, d, r, c: _experts(s, is_per_token=False)),
    "experts_per_token": ("experts", lambda s, d, r, c: _experts(s, is_per_token=True)),
    "weight_bytes": ("B", lambda s, d, r, c: arithmetic.weight_bytes(s, d)),
    "read_bytes_per_step": ("B", lambda s, d, r, c: arithmetic.bytes_read_per_step(s, d, r, c).total),
    "kv_bytes_per_token": ("B/token", lambda s, d, r, c: arithmetic.kv_bytes_per_token(s, d)),
    "kv_cache_bytes": ("B", lambda s, d, r, c: r * arithmetic.kv_cache_bytes(s, c, d)),
    "flops_per_token": ("FLOP/token", lambda s, d, r, c: arithmetic.flops_per_token(s, c)),
}
"""Closed forms by name: unit, and the form of shape, dtype, rows and tokens of context."""


def _of_band(name: str, row: Input, band: Band, source: Source) -> Resolved:
    unit = unit_or_fault(band.unit)
    value = Quantity(scaled(_band(band), unit), unit.dimension, frozenset({Rest(name, source.key, False)}))
    return Resolved(name, row, value, band.unit, (source,))


def _band(band: Band) -> Interval:
    if band.low is not None and band.mid is not None and band.high is not None:
        return Interval(band.low, band.mid, band.high)
    if band.value is None:
        raise RuleError("a number without a value")
    return point(band.value)


def _read_fact(wanted: str, unit: str | None, evidence: Evidence) -> Source:
    row_id, _, part = wanted.partition(".")
    if row_id not in evidence.facts:
        raise unknown("fact", row_id, evidence.facts)
    fact = evidence.facts[row_id]
    if part and part not in fact.parts:
        raise unknown(f"part of {row_id}", part, fact.parts)
    if not part and fact.value is None:
        raise RuleError(f"the fact {row_id} states no single number; its parts: {', '.join(fact.parts) or 'none'}")
    amount = fact.amount(part or None)
    mid = amount.value if amount.value is not None else (amount.low + amount.high) / 2
    return _fact_source(fact, wanted, Interval(amount.low, mid, amount.high), unit or amount.unit)


def _fact_source(fact: Fact, name: str, interval: Interval | None, unit: str) -> Source:
    return Source(
        site_of(fact.source_url),
        name,
        interval,
        unit,
        by=fact.source_title,
        date=fact.published,
        read_on=fact.read_on,
        url=fact.source_url,
        title=fact.source_title,
        labels=(() if fact.is_primary else ("second-hand",)) + (("our arithmetic",) if fact.derived else ()),
    )


def _resolve_truth(name: str, row: Input, fact: Fact) -> Resolved:
    """A fact that is true or false."""
    source = _fact_source(fact, fact.id, None, "")
    state = State.TRUE if fact.value else State.FALSE
    return Resolved(name, row, Truth(state, frozenset({Rest(name, source.key, True)})), "", (source,))


def _lacking(name: str, row: Input, unit: str, reason: str) -> Resolved:
    cause = Cause(name, reason, row.can_be_had)
    return Resolved(name, row, Lacking(unit_or_fault(unit).dimension, None, frozenset({cause})), unit)


def _find_device(text: str, evidence: Evidence) -> tuple[DeviceRow, str]:
    """The device and the field of `NAME.field`: a name may hold dots, and so may a field."""
    for name in sorted(evidence.devices, key=len, reverse=True):
        if text.startswith(f"{name}."):
            return evidence.devices[name], text[len(name) + 1 :]
    raise unknown("device", text.rpartition(".")[0], evidence.devices)


def _split_model(text: str, evidence: Evidence) -> ModelQuantity:
    name, _, quantity = text.rpartition(".")
    if not name:
        raise unknown("model", text, evidence.models)
    return ModelQuantity(name=name, quantity=quantity)


def _with_url(source: Source, device: DeviceRow) -> Source:
    urls = [url for url in (device.source_url, *device.other_sources) if url]
    return Source(
        source.key, source.name, source.interval, source.unit, read_on=source.read_on, url=urls[0] if urls else None
    )
