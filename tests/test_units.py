"""How a value is written: three significant digits, SI prefixes where the unit takes them, and nothing rounded away."""

from __future__ import annotations

import math

import pytest

from tokbench.units import (
    ALL_UNITS,
    BYTES,
    BYTES_PER_S,
    JOULES_PER_TOKEN,
    RATIO,
    SECONDS,
    TOKENS_PER_S,
    Unit,
    check_suffix,
    format_number,
    format_value,
    unit_of,
)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.0, SECONDS, "0 s"),
        (1.0, SECONDS, "1.00 s"),
        (0.1234, SECONDS, "123 ms"),
        (0.9994, SECONDS, "999 ms"),
        (0.99949, SECONDS, "999 ms"),
        (0.9996, SECONDS, "1.00 s"),
        (999.4, SECONDS, "999 s"),
        (999.6, SECONDS, "1.00 ks"),
        (1e-3, SECONDS, "1.00 ms"),
        (0.0009996, SECONDS, "1.00 ms"),
        (1.5e-6, SECONDS, "1.50 µs"),
        (2.5e-9, SECONDS, "2.50 ns"),
        (2.5e-11, SECONDS, "0.0250 ns"),
        (-0.1234, SECONDS, "-123 ms"),
        (-999.6, SECONDS, "-1.00 ks"),
        (1_340_000_000_000, BYTES, "1.34 TB"),
        (999_600_000, BYTES, "1.00 GB"),
        (16_060_522_496, BYTES, "16.1 GB"),
        (5e15, BYTES, "5,000 TB"),
        (4.8e12, BYTES_PER_S, "4.80 TB/s"),
        (0.00312, JOULES_PER_TOKEN, "3.12 mJ/token"),
        (1234.5, TOKENS_PER_S, "1,230 tokens/s"),
        (999.6, TOKENS_PER_S, "1,000 tokens/s"),
        (99.96, TOKENS_PER_S, "100 tokens/s"),
        (0.0, TOKENS_PER_S, "0 tokens/s"),
        (0.512, RATIO, "0.512"),
        (0.0, RATIO, "0"),
        (math.inf, SECONDS, "inf s"),
        (math.nan, RATIO, "nan"),
    ],
)
def test_a_value_with_its_unit(value: float, unit: Unit, expected: str) -> None:
    assert expected == format_value(value, unit)


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.9996, 4, "0.9996"),
        (0.0, 3, "0"),
        (-0.0, 3, "0"),
        (1.0, 3, "1.00"),
        (9.996, 3, "10.0"),
        (12.345, 3, "12.3"),
        (99.96, 3, "100"),
        (123.45, 3, "123"),
        (123.45, 4, "123.5"),
        (1234.5, 3, "1,230"),
        (1234.5, 5, "1,234.5"),
        (9_990_000.0, 3, "9,990,000"),
        (9_999_999.0, 3, "1.00e+07"),
        (12_345_678.0, 3, "1.23e+07"),
        (0.00012345, 3, "0.000123"),
        (0.000012345, 3, "1.23e-05"),
        (0.99996, 3, "1.00"),
        (-1234.5, 3, "-1,230"),
        (-0.05, 2, "-0.050"),
    ],
)
def test_a_number_has_so_many_significant_digits(value: float, digits: int, expected: str) -> None:
    assert expected == format_number(value, digits)


@pytest.mark.parametrize("exponent", range(-9, 13))
@pytest.mark.parametrize("mantissa", [1.0, 1.004, 4.567, 9.994, 9.996])
def test_what_is_printed_is_the_value_to_three_digits(mantissa: float, exponent: int) -> None:
    prefixes = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "m": 1e-3, "µ": 1e-6, "n": 1e-9, "": 1.0}
    value = mantissa * 10.0**exponent
    number, _, symbol = format_value(value, SECONDS).partition(" ")
    assert pytest.approx(value, rel=0.006) == float(number.replace(",", "")) * prefixes[symbol.removesuffix("s")]
    assert len(number.replace(".", "").replace(",", "").lstrip("0")) in (3, 4)


def test_more_digits_move_the_border_of_a_prefix() -> None:
    assert "999.6 ms" == format_value(0.9996, SECONDS, 4)
    assert "1.000 s" == format_value(0.99996, SECONDS, 4)


def test_the_name_of_a_quantity_ends_in_its_unit() -> None:
    check_suffix("ttft_s", SECONDS)
    check_suffix("decode_tokens_per_s", TOKENS_PER_S)
    with pytest.raises(ValueError, match="'ttft_ms' is measured in s: its name must end in"):
        check_suffix("ttft_ms", SECONDS)
    with pytest.raises(ValueError, match="is measured in ratio"):
        check_suffix("acceptance", RATIO)


def test_a_unit_is_found_by_its_symbol() -> None:
    assert all(unit == unit_of(unit.symbol) for unit in ALL_UNITS)
    assert "5,000 parsecs" == format_value(5000, unit_of("parsecs"))
