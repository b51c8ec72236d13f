"""Units as claims, facts and published rows write them, and the dimensions that arithmetic carries along.

Devices, users, requests, parameters, chips, layers and shares are plain numbers: `tokens/s/user` is `tokens/s`. Whether
a rate is of one stream or of a system is told by its metric, never by its unit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final, NamedTuple

Powers = Mapping[str, int | Fraction]


@dataclasses.dataclass(frozen=True, slots=True)
class Dimension:
    """A product of powers of the base units, in the order of their names."""

    powers: tuple[tuple[str, Fraction], ...] = ()

    def times(self, other: Dimension, sign: int = 1) -> Dimension:
        """The dimension of a product, or with sign -1 of a quotient."""
        return _product(self, other, sign)

    def to(self, exponent: Fraction) -> Dimension:
        """The dimension of a power."""
        return _dimension({base: own * exponent for base, own in self.powers})

    @property
    def symbol(self) -> str:
        """The base units as text; nothing for a plain number."""
        if self == _WATT:
            return "W"
        above = [_powered(base, exponent) for base, exponent in self.powers if exponent > 0]
        below = [_powered(base, -exponent) for base, exponent in self.powers if exponent < 0]
        if not below:
            return "·".join(above)
        return "/".join(["·".join(above) or "1", *("token" if base == "tokens" else base for base in below)])


class ReadUnit(NamedTuple):
    """A unit: how much of the base units it is."""

    factor: float
    dimension: Dimension


@functools.cache
def _product(one: Dimension, other: Dimension, sign: int) -> Dimension:
    powers = dict(one.powers)
    for base, exponent in other.powers:
        powers[base] = powers.get(base, Fraction(0)) + sign * exponent
    return _dimension(powers)


def _dimension(powers: Powers) -> Dimension:
    return Dimension(tuple((base, Fraction(powers[base])) for base in sorted(powers) if powers[base] != 0))


def _powered(base: str, exponent: Fraction) -> str:
    return base if exponent == 1 else f"{base}^{exponent}"


PLAIN: Final = Dimension()
_WATT: Final = _dimension({"J": 1, "s": -1})
_FLOP_RATE: Final[Powers] = {"FLOP": 1, "s": -1}
_YEAR_S: Final = 365.25 * 86400

_PREFIXES: Final = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "m": 1e-3, "µ": 1e-6, "n": 1e-9}
_SCALED: Final[Mapping[str, tuple[float, Powers]]] = {
    "s": (1.0, {"s": 1}),
    "J": (1.0, {"J": 1}),
    "W": (1.0, {"J": 1, "s": -1}),
    "Wh": (3600.0, {"J": 1}),
    "B": (1.0, {"B": 1}),
    "bit": (0.125, {"B": 1}),
    "FLOP": (1.0, {"FLOP": 1}),
    "FLOPS": (1.0, _FLOP_RATE),
    "OPS": (1.0, _FLOP_RATE),
    "m": (1.0, {"m": 1}),
    "g": (1e-3, {"kg": 1}),
}
_PLAIN_WORDS: Final = (
    "1 x ratio share fraction user users request requests query queries stream streams device devices GPU GPUs gpu "
    "chip chips card cards die dies wafer wafers core cores lane lanes SM SMs node nodes rack racks system systems "
    "server servers parameter parameters param params weight weights layer layers expert experts step steps line lines "
    "IQ package packages point points task tasks answer answers head heads H100 LPU LPUs item items row rows"
)
_WHOLE: Final[Mapping[str, tuple[float, Powers]]] = {
    **dict.fromkeys(_PLAIN_WORDS.split(), (1.0, {})),
    **dict.fromkeys(("token", "tokens", "tok"), (1.0, {"tokens": 1})),
    **dict.fromkeys(("ktokens", "ktok"), (1e3, {"tokens": 1})),
    **dict.fromkeys(("Mtokens", "Mtok"), (1e6, {"tokens": 1})),
    **dict.fromkeys(("word", "words"), (1.0, {"word": 1})),
    **dict.fromkeys(("second", "seconds"), (1.0, {"s": 1})),
    **dict.fromkeys(("min", "minute", "minutes"), (60.0, {"s": 1})),
    **dict.fromkeys(("h", "hour", "hours"), (3600.0, {"s": 1})),
    **dict.fromkeys(("day", "days"), (86400.0, {"s": 1})),
    **dict.fromkeys(("month", "months"), (_YEAR_S / 12, {"s": 1})),
    **dict.fromkeys(("year", "years"), (_YEAR_S, {"s": 1})),
    **dict.fromkeys(("byte", "bytes"), (1.0, {"B": 1})),
    **dict.fromkeys(("bits",), (0.125, {"B": 1})),
    **dict.fromkeys(("KiB", "kiB"), (2.0**10, {"B": 1})),
    "MiB": (2.0**20, {"B": 1}),
    "GiB": (2.0**30, {"B": 1}),
    "TiB": (2.0**40, {"B": 1}),
    "USD": (1.0, {"USD": 1}),
    **dict.fromkeys(("lb", "pound", "pounds"), (0.45359237, {"kg": 1})),
    "t": (1e3, {"kg": 1}),
    "gCO2e": (1.0, {"gCO2e": 1}),
    "%": (0.01, {}),
    "thousand": (1e3, {}),
    "million": (1e6, {}),
    "billion": (1e9, {}),
    "trillion": (1e12, {}),
}
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)([kMGT]?)")
_POWER: Final = re.compile(r"([A-Za-zµ]+)\^?([23])")


@functools.cache
def read_unit(text: str) -> ReadUnit:
    """Read a unit such as `GB/s`, `kW per GPU`, `USD/1M tokens`, `billion parameters` or `mm2`.

    Raises:
        ValueError: a word in it is no unit.
    """
    factor, dimension = 1.0, PLAIN
    for place, part in enumerate(re.sub(r"\bper\b", "/", text.strip()).split("/")):
        sign = 1 if place == 0 else -1
        for word in part.replace("*", " ").replace("·", " ").split():
            size, powers = _read_word(word, text)
            factor *= size**sign
            dimension = dimension.times(_dimension(powers), sign)
    if not math.isfinite(factor):
        raise ValueError(f"{text!r} is a unit without a size")
    return ReadUnit(factor, dimension)


def _read_word(word: str, text: str) -> tuple[float, Powers]:
    if word in _WHOLE:
        return _WHOLE[word]
    if (number := _NUMBER.fullmatch(word)) and float(number[1]) > 0:
        return float(number[1]) * (_PREFIXES[number[2]] if number[2] else 1.0), {}
    if found := _read_scaled(word):
        return found
    if power := _POWER.fullmatch(word):
        found = _read_scaled(power[1])
        if found is not None:
            exponent = int(power[2])
            return found[0] ** exponent, {base: own * exponent for base, own in found[1].items()}
    raise ValueError(f"{word!r} in {text!r} is no unit; write one such as tokens/s, GB/s, J/token, USD/h, kW or x")


def _read_scaled(word: str) -> tuple[float, Powers] | None:
    if word in _SCALED:
        return _SCALED[word]
    prefix, rest = word[:1], word[1:]
    if prefix in _PREFIXES and rest in _SCALED:
        size, powers = _SCALED[rest]
        return _PREFIXES[prefix] * size, powers
    return None
