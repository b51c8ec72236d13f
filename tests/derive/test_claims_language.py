"""The claims' language: bounds, units, three-valued logic, and that nothing but the language is ever run."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claims_builders import band, lacking
from tokbench.derive.claims.dimensions import PLAIN, read_unit
from tokbench.derive.claims.expressions import evaluate, parse, thresholds, with_threshold
from tokbench.derive.claims.intervals import (
    Interval,
    UndefinedError,
    absolute,
    divide,
    multiply,
    point,
    power,
    subtract,
)
from tokbench.derive.claims.truths import least_sources
from tokbench.derive.claims.values import Lacking, Quantity, Rest, RuleError, Series, State, Truth, Truths, Value, plain

RATE = read_unit("tokens/s").dimension


def series(*pairs: tuple[float, float], axis: str = "source", unit: str = "1", name: str = "s") -> Series:
    entries = tuple(
        (str(index), Interval(low, (low + high) / 2, high), frozenset({Rest(name, str(index), True)}))
        for index, (low, high) in enumerate(pairs)
    )
    return Series(axis, entries, read_unit(unit).dimension)


def points(*values: float, axis: str = "static_batch", unit: str = "1") -> Series:
    return series(*((value, value) for value in values), axis=axis, unit=unit)


def value_of(text: str, **scope: Value) -> Value:
    return evaluate(parse(text), scope)


def number_of(text: str, **scope: Value) -> Interval:
    found = value_of(text, **scope)
    assert isinstance(found, Quantity), found
    return found.interval


def state_of(text: str, **scope: Value) -> State:
    found = value_of(text, **scope)
    assert isinstance(found, Truth), found
    return found.state


@pytest.mark.parametrize(
    ("text", "factor", "symbol"),
    [
        ("tokens/s/user", 1.0, "tokens/s"),
        ("GB/s", 1e9, "B/s"),
        ("kW per GPU", 1e3, "W"),
        ("USD/1M tokens", 1e-6, "USD/token"),
        ("billion parameters", 1e9, ""),
        ("kWh", 3.6e6, "J"),
        ("bit", 0.125, "B"),
        ("mm2", 1e-6, "m^2"),
        ("TFLOPS", 1e12, "FLOP/s"),
        ("words/min", 1 / 60, "word/s"),
        ("USD/h", 1 / 3600, "USD/s"),
        ("GPU hours", 3600.0, "s"),
        ("%", 0.01, ""),
        ("1", 1.0, ""),
    ],
)
def test_units_are_read(text: str, factor: float, symbol: str) -> None:
    unit = read_unit(text)
    assert (pytest.approx(factor), symbol) == (unit.factor, unit.dimension.symbol)


@pytest.mark.parametrize("text", ["H800 hours", "tokns/s", "GBps", "USD/month-ish"])
def test_a_word_that_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no unit"):
        read_unit(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b", Interval(3, 5, 7)),
        ("a - b", Interval(-3, -1, 1)),
        ("a * b", Interval(2, 6, 12)),
        ("a / b", Interval(0.25, 2 / 3, 1.5)),
        ("a ** 2", Interval(1, 4, 9)),
        ("-a", Interval(-3, -2, -1)),
        ("min(a, b)", Interval(1, 2, 3)),
        ("max(a, 2.5)", Interval(2.5, 2.5, 3)),
        ("abs(a - 2)", Interval(0, 0, 1)),
        ("sqrt(a)", Interval(1, math.sqrt(2), math.sqrt(3))),
        ("log2(b)", Interval(1, math.log2(3), 2)),
        ("ceil(a / 2)", Interval(1, 1, 2)),
        ("tokens_per_round(0.5, a)", Interval(1.5, 1.75, 1.875)),
        ("distinct_experts(128, 8, 1)", Interval(8, 8, 8)),
    ],
)
def test_arithmetic_keeps_the_worst_of_both_ends(text: str, expected: Interval) -> None:
    a, b = Quantity(Interval(1, 2, 3), PLAIN), Quantity(Interval(2, 3, 4), PLAIN)
    assert pytest.approx(tuple(expected)) == tuple(number_of(text, a=a, b=b))


finite = st.floats(-1e3, 1e3)
intervals = st.tuples(finite, finite, finite).map(sorted).map(lambda ends: Interval(*ends))


@given(intervals, intervals, st.floats(0, 1), st.floats(0, 1))
def test_the_true_result_is_inside(a: Interval, b: Interval, at_a: float, at_b: float) -> None:
    x, y = a.low + at_a * (a.high - a.low), b.low + at_b * (b.high - b.low)
    x, y = min(max(x, a.low), a.high), min(max(y, b.low), b.high)
    for found, true in (
        (multiply(a, b), x * y),
        (subtract(a, b), x - y),
        (absolute(a), abs(x)),
        (power(a, point(2.0)), x**2),
        (power(a, point(3.0)), x**3),
    ):
        slack = 1e-9 * max(1.0, abs(true))
        assert found.low - slack <= true <= found.high + slack
    if b.low > 1e-3 or b.high < -1e-3:
        quotient = divide(a, b)
        assert quotient.low - 1e-6 <= x / y <= quotient.high + 1e-6


def test_a_division_by_an_interval_that_holds_zero_has_no_value() -> None:
    with pytest.raises(UndefinedError):
        divide(point(1.0), Interval(-1, 0.5, 1))
    found = value_of("1 / x", x=band(-1, 1))
    assert isinstance(found, Lacking)
    assert State.UNDECIDED is state_of("1 / x > 0", x=band(-1, 1))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("x > 1", State.TRUE),
        ("x > 2", State.UNDECIDED),
        ("x >= 2", State.TRUE),
        ("x > 3", State.UNDECIDED),
        ("x > 4", State.FALSE),
        ("x >= 4", State.UNDECIDED),
        ("x < 4", State.UNDECIDED),
        ("x <= 4", State.TRUE),
        ("x < 2", State.FALSE),
        ("1 < x < 5", State.TRUE),
        ("1 < x < 3", State.UNDECIDED),
        ("not x > 4", State.TRUE),
        ("x > 3 or x > 1", State.TRUE),
        ("x > 3 and x > 4", State.FALSE),
        ("x > 3 and x > 1", State.UNDECIDED),
        ("x > 3 or x > 4", State.UNDECIDED),
        ("gone > 1 or x > 1", State.TRUE),
        ("gone > 1 and x > 4", State.FALSE),
        ("gone > 1 and x > 1", State.UNDECIDED),
    ],
)
def test_a_comparison_is_firm_only_over_the_whole_interval(text: str, state: State) -> None:
    assert state is state_of(text, x=band(2, 4), gone=lacking())


def test_an_undecided_truth_tells_what_straddles_and_what_is_missing() -> None:
    found = value_of("gone > 1 and x > 3 and x > 1", x=band(2, 4), gone=lacking())
    assert isinstance(found, Truth)
    assert ("x > 3",) == found.straddles
    assert {"not measured"} == {cause.reason for cause in found.causes}


def test_a_division_that_no_evidence_can_mend_is_an_error_and_another_one_names_its_place() -> None:
    for text in ("x / 0", "x / (2 - 2)", "1 / 0", "9 ** 9 ** 9 ** 9", "1e99 * 1e99 * 1e99 * 1e99"):
        with pytest.raises(RuleError):
            value_of(text, x=band(1, 2))
    found = value_of("3 + 1 / x", x=band(-1, 1))
    assert isinstance(found, Lacking)
    assert ["`1 / x`: a division by zero, or by an interval that holds it"] == [c.reason for c in found.causes]


@pytest.mark.parametrize("text", ["b ** 0.3", "b ** 1e99", "b ** 13", "b ** -40"])
def test_a_power_that_no_unit_has_is_refused_and_never_rounded(text: str) -> None:
    with pytest.raises(RuleError, match="no unit has such a power"):
        value_of(text, b=band(1, 2, read_unit("B").dimension))
    assert read_unit("B").dimension == value_of("(b ** (1 / 3)) ** 3", b=band(1, 2, read_unit("B").dimension)).dimension


def test_units_are_carried_and_checked() -> None:
    rate = Quantity(point(100.0), RATE)
    assert (12.75, 12.75) == (number_of("q(1275, 'tokens/s') / x", x=rate).low, 12.75)
    assert State.TRUE is state_of("x < q(1, 'ktokens/s')", x=rate)
    assert "s" == value_of("1 / (x / q(1, 'tokens'))", x=rate).dimension.symbol  # type: ignore[union-attr]
    for wrong in ("x > 5", "x + 1", "x > q(5, 'GB/s')", "log(x)", "x ** y", "min(x, 3)", "2 ** x"):
        with pytest.raises(RuleError):
            value_of(wrong, x=rate, y=band(1, 2))


@pytest.mark.parametrize("wrong", ["gone > 5", "gone + 1"])
def test_units_are_checked_even_where_evidence_is_missing(wrong: str) -> None:
    with pytest.raises(RuleError):
        value_of(wrong, gone=lacking(RATE))


def test_series_meet_by_key() -> None:
    a = Series("model", (("m", point(10.0), frozenset()), ("n", point(6.0), frozenset())), PLAIN)
    b = Series("model", (("n", point(2.0), frozenset()), ("o", point(9.0), frozenset())), PLAIN)
    ratio = value_of("a / b", a=a, b=b)
    assert isinstance(ratio, Series)
    assert (("n", point(3.0), frozenset()),) == ratio.entries
    none = value_of("a / b", a=a, b=points(1, axis="model"))
    assert isinstance(none, Lacking)
    with pytest.raises(RuleError, match="cannot be set side by side"):
        value_of("a / b", a=a, b=points(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count(s >= 5)", Interval(1, 1, 2)),
        ("count(s)", point(3.0)),
        ("least(s)", Interval(1, 2, 3)),
        ("greatest(s)", Interval(7, 8, 9)),
        ("median(s)", Interval(4, 5, 6)),
        ("total(s)", Interval(12, 15, 18)),
    ],
)
def test_a_series_is_gathered(text: str, expected: Interval) -> None:
    assert expected == number_of(text, s=series((1, 3), (4, 6), (7, 9)))


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("any(s > 6)", State.TRUE),
        ("any(s > 8)", State.UNDECIDED),
        ("any(s > 9)", State.FALSE),
        ("all(s > 0)", State.TRUE),
        ("all(s > 2)", State.UNDECIDED),
        ("all(s > 3.5)", State.FALSE),
        ("all(s > 0 and s < 10)", State.TRUE),
        ("count(s >= 5) >= 2", State.UNDECIDED),
        ("count(s >= 4) >= 2", State.TRUE),
    ],
)
def test_a_series_is_judged(text: str, state: State) -> None:
    assert state is state_of(text, s=series((1, 3), (4, 6), (7, 9)))


def test_any_rests_on_the_entries_that_hold_and_all_on_every_one() -> None:
    s = series((1, 3), (4, 6), (7, 9))
    assert [1, 2, 3, 1] == [
        least_sources(value_of(text, s=s).rests)  # type: ignore[union-attr]
        for text in ("any(s > 6)", "any(s > 3.5)", "all(s > 0)", "count(s > 6) >= 1")
    ]


def test_an_or_that_holds_twice_rests_on_the_better_half() -> None:
    weak, strong = (
        band(2, 3, sources=1),
        Quantity(point(2.0), PLAIN, frozenset({Rest("y", "a", True), Rest("y", "b", True)})),
    )
    found = value_of("x > 1 or y > 1", x=weak, y=strong)
    assert isinstance(found, Truth)
    assert {"y"} == {rest.input for rest in found.rests}


def test_the_slope_of_a_power_law_is_its_exponent() -> None:
    batch, step = points(1, 4, 16), points(2.0, 2.0 * 4**0.25, 2.0 * 16**0.25)
    assert pytest.approx(0.25) == number_of("slope(log(batch), log(step))", batch=batch, step=step).mid
    wide = series((2, 4), (2, 4), (2, 4), axis="static_batch")
    found = number_of("slope(log(batch), log(step))", batch=batch, step=wide)
    assert found.low < 0 < found.high
    assert isinstance(value_of("slope(x, y)", x=points(1), y=points(2)), Lacking)


def test_rank_correlation_counts_pairs_and_overlaps_either_way() -> None:
    up, down = points(1, 2, 3), points(9, 5, 1)
    assert (1.0, -1.0) == tuple(
        number_of(f"rank_correlation(a, {b})", a=up, up=up, down=down).mid for b in ("up", "down")
    )
    blurred = series((1, 3), (2, 4), (9, 9), axis="static_batch")
    assert (1 / 3, 1.0) == tuple(
        getattr(number_of("rank_correlation(a, b)", a=up, b=blurred), end) for end in ("low", "high")
    )


def test_dominating_pairs_need_every_series_and_the_margin() -> None:
    fast, frugal = points(10, 20, 30, axis="precision"), points(1, 2, 0.5, axis="precision")
    assert 1 == number_of("dominating_pairs(0.1, a, b)", a=fast, b=frugal).mid
    assert 0 == number_of("dominating_pairs(1.1, a, b)", a=fast, b=frugal).mid
    blurred = series((10, 22), (18, 20), (30, 30), axis="precision")
    assert Interval(0, 1, 1) == number_of("dominating_pairs(0.1, a, b)", a=blurred, b=frugal)
    assert isinstance(value_of("dominating_pairs(0.1, a, g)", a=fast, g=lacking(axis="precision")), Lacking)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "x.real",
        "x[0]",
        "[x for x in (1, 2)]",
        "lambda: 1",
        "f'{x}'",
        "x if x else 1",
        "abs(x=1)",
        "'text'",
        "True",
        "x == 1",
        "x != 1",
        "x is 1",
        "x % 2",
        "x // 2",
        "x @ x",
        "~x",
        "open('f')",
        "abs",
        "abs()",
        "min(1)",
        "q(1)",
        "q('1', 's')",
        "q(1, 'nonsense')",
        "1e999",
        "1j",
        "x;1",
        "",
        "(" * 300,
        "1" * 3000,
        "+".join("1" * 900),
        "not " * 400 + "(x > 1)",
        "-" * 1500 + "x",
        "(x := 1)",
    ],
)
def test_nothing_but_the_language_is_taken(text: str) -> None:
    with pytest.raises(RuleError):
        parse(text)


def test_numbers_and_truths_are_not_mixed_up() -> None:
    for text in ("(x > 1) + 1", "not x", "x and x > 1", "any(x > 1)", "abs(x > 1)", "unknown > 1", "least(x)"):
        with pytest.raises(RuleError):
            value_of(text, x=plain(1.0))


def test_thresholds_are_found_and_can_be_replaced() -> None:
    rule = parse("x >= 0.85 * y and count(s > q(3, 's')) >= 2")
    assert [0.85, 2, 3] == sorted(thresholds(rule))
    assert "9.0" in with_threshold(rule, thresholds(rule).index(0.85), 9.0).text


def test_truths_of_a_series_that_is_missing_stay_undecided() -> None:
    gone = lacking(axis="source")
    assert isinstance(value_of("g > 1", g=gone), Truths)
    assert [State.UNDECIDED] * 3 == [
        state_of(text, g=gone) for text in ("any(g > 1)", "all(g > 1)", "count(g > 1) > 1")
    ]
