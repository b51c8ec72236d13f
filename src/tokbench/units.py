"""Units and how a value is written. The only place where milli, kilo and giga exist."""

from __future__ import annotations

import dataclasses
import enum
import math


class Better(enum.Enum):
    """Which way a metric improves."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """One SI unit: how it is printed, and how the name of a quantity in it must end."""

    symbol: str
    suffixes: tuple[str, ...]
    is_scaled: bool
    """Whether SI prefixes are used when it is printed."""


SECONDS = Unit("s", ("_s",), True)
TOKENS_PER_S = Unit("tokens/s", ("_tokens_per_s",), False)
TOKENS_PER_S_PER_DEVICE = Unit("tokens/s/device", ("_tokens_per_s_per_device",), False)
REQUESTS_PER_S = Unit("requests/s", ("_requests_per_s", "requests_per_s"), False)
BYTES = Unit("B", ("_bytes",), True)
BYTES_PER_TOKEN = Unit("B/token", ("_bytes_per_token",), True)
BYTES_PER_STEP = Unit("B/step", ("_bytes_read_per_step", "_bytes_read_per_step_allocated"), True)
BYTES_PER_S = Unit("B/s", ("_bytes_per_s",), True)
FLOPS_PER_S = Unit("FLOP/s", ("_flops_per_s",), True)
JOULES = Unit("J", ("_j",), True)
JOULES_PER_TOKEN = Unit("J/token", ("_j_per_output_token", "_j_per_prompt_token"), True)
TOKENS_PER_JOULE = Unit("tokens/J", ("_tokens_per_j",), False)
WATTS = Unit("W", ("_w",), False)
RATIO = Unit(
    "",
    (
        *("_ratio", "_x", "_alpha", "_over_predicted", "_per_step", "_experts", "_at_position"),
        *("_nats", "_per_doubling", "_below_peak", "_p_value"),
    ),
    False,
)
USD_PER_MILLION = Unit("USD/1M tokens", ("usd_per_million_output_tokens", "usd_per_million_input_tokens"), False)

ALL_UNITS = (
    SECONDS,
    TOKENS_PER_S,
    TOKENS_PER_S_PER_DEVICE,
    REQUESTS_PER_S,
    BYTES,
    BYTES_PER_TOKEN,
    BYTES_PER_STEP,
    BYTES_PER_S,
    FLOPS_PER_S,
    JOULES,
    JOULES_PER_TOKEN,
    TOKENS_PER_JOULE,
    WATTS,
    RATIO,
    USD_PER_MILLION,
)

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def check_suffix(name: str, unit: Unit) -> None:
    """Refuse a quantity whose name does not end in its unit.

    Raises:
        ValueError: the name and the unit disagree.
    """
    if not name.endswith(unit.suffixes):
        raise ValueError(f"{name!r} is measured in {unit.symbol or 'ratio'}: its name must end in {unit.suffixes}")


def unit_of(symbol: str) -> Unit:
    """The unit that prints as `symbol`; one that scales nothing where it is not known."""
    for unit in ALL_UNITS:
        if unit.symbol == symbol:
            return unit
    return Unit(symbol, (), False)


def format_number(value: float, digits: int = 3) -> str:
    """Write a number with `digits` significant digits, without an exponent between 1e-4 and 1e7."""
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    scientific = f"{value:.{digits - 1}e}"
    magnitude = int(scientific.partition("e")[2])  # after rounding: 99.96 has the magnitude of 100
    if magnitude < -4 or magnitude >= max(7, digits):
        return scientific
    return f"{float(scientific):,.{max(digits - 1 - magnitude, 0)}f}"


def format_value(value: float, unit: Unit, digits: int = 3) -> str:
    """Write a value with its unit, scaled by an SI prefix where the unit allows it."""
    if not unit.is_scaled or value == 0 or not math.isfinite(value):
        text = format_number(value, digits)
        return f"{text} {unit.symbol}".strip()
    size = float(f"{abs(value):.{digits - 1}e}")  # after rounding: 999.6 ms is 1.00 s
    scale, prefix = next(((s, p) for s, p in _PREFIXES if size >= s), _PREFIXES[-1])
    return f"{format_number(value / scale, digits)} {prefix}{unit.symbol}"
