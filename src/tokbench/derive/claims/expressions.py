"""The claims' language: parses an expression and evaluates it over values with bounds and units.

It runs no code: `ast` parses, and a walk over a whitelist of nodes does the rest. A user's file may be hostile.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from tokbench.derive.claims import intervals, truths
from tokbench.derive.claims.dimensions import PLAIN, Dimension, read_unit
from tokbench.derive.claims.functions import FUNCTIONS
from tokbench.derive.claims.values import (
    Bounds,
    Lacking,
    Number,
    Quantity,
    RuleError,
    Truth,
    Truths,
    Value,
    combine,
    plain,
    unknown,
)

MAX_LENGTH: Final = 2_000
"""Characters of one expression: a rule is a line, and deeper nesting than this can hold is nobody's rule."""
MAX_DEPTH: Final = 60
LARGEST: Final = 1e100
LARGEST_POWER: Final = 12
"""Of a number with a unit: beyond it no unit has a meaning."""
WITH_UNIT: Final = "q"
RESERVED: Final = frozenset({*FUNCTIONS, WITH_UNIT, "and", "or", "not"})

_COMPARISONS: Final = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_SUMS: Final[Mapping[type[ast.operator], Bounds]] = {ast.Add: intervals.add, ast.Sub: intervals.subtract}
_PRODUCTS: Final[Mapping[type[ast.operator], tuple[Bounds, int]]] = {
    ast.Mult: (intervals.multiply, 1),
    ast.Div: (intervals.divide, -1),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: every node is of the whitelist, every function exists."""

    text: str
    node: ast.expr
    names: frozenset[str]
    """The inputs and steps that it names."""


def parse(text: str) -> Expression:
    """Parse an expression.

    Raises:
        RuleError: it is no expression of the language.
    """
    if len(text) > MAX_LENGTH:
        raise RuleError(f"longer than {MAX_LENGTH} characters")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        raise RuleError(f"`{text.strip()}` is no expression: {message}") from None
    if _depth(node) > MAX_DEPTH:
        raise RuleError(f"nested deeper than {MAX_DEPTH} levels: give the inner parts names under `let`")
    names: set[str] = set()
    _check(node, names)
    return Expression(text.strip(), node, frozenset(names))


def evaluate(expression: Expression, scope: Mapping[str, Value]) -> Value:
    """The value of an expression.

    Raises:
        RuleError: units that do not agree, a name that is not in scope, a comparison where a number belongs.
    """
    return _value(expression.node, scope)


def thresholds(expression: Expression) -> tuple[float, ...]:
    """The numbers that stand in it, in order."""
    return tuple(node.value for node in _constants(expression.node) if isinstance(node.value, int | float))


def with_threshold(expression: Expression, index: int, value: float) -> Expression:
    """The expression with another number in place of one; what a mutation test asks for."""
    node = ast.parse(expression.text, mode="eval").body
    _constants(node)[index].value = value
    return parse(ast.unparse(node))


def _constants(node: ast.expr) -> list[ast.Constant]:
    return [part for part in ast.walk(node) if isinstance(part, ast.Constant) and not isinstance(part.value, str)]


def _depth(node: ast.AST) -> int:
    """Levels of nesting; level by level, because what nests too deeply must not be walked by recursion."""
    level, depth = [node], 0
    while level:
        level, depth = [child for parent in level for child in ast.iter_child_nodes(parent)], depth + 1
    return depth


def _check(node: ast.AST, names: set[str]) -> None:
    """Refuse whatever is not of the language, and collect the names."""
    match node:
        case ast.Constant(value=bool()):
            raise RuleError(f"`{ast.unparse(node)}` is no number")
        case ast.Constant(value=int() | float() as number):
            _check_size(number)
        case ast.Name():
            if node.id in RESERVED:
                raise RuleError(f"{node.id} is a function: write {node.id}(…)")
            names.add(node.id)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            _check(node.operand, names)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Pow()):
            _check(node.left, names)
            _check(node.right, names)
        case ast.BoolOp():
            for part in node.values:
                _check(part, names)
        case ast.Compare():
            _check_comparison(node)
            for part in (node.left, *node.comparators):
                _check(part, names)
        case ast.Call():
            _check_call(node, names)
        case _:
            raise RuleError(f"`{ast.unparse(node)}` does not belong to the language of claims")


def _check_size(number: float) -> None:
    if not abs(number) <= LARGEST:
        raise RuleError(f"a number beyond {LARGEST:g}")


def _check_comparison(node: ast.Compare) -> None:
    for symbol in node.ops:
        if type(symbol) not in _COMPARISONS:
            raise RuleError(f"`{ast.unparse(node)}`: compare with < <= > >=; for equality write abs(a - b) <= c")


def _check_call(node: ast.Call, names: set[str]) -> None:
    if not isinstance(node.func, ast.Name) or node.keywords:
        raise RuleError(f"`{ast.unparse(node)}` does not belong to the language of claims")
    name = node.func.id
    if name == WITH_UNIT:
        _read_unit_call(node)
        return
    if name not in FUNCTIONS:
        raise unknown("function", name, RESERVED)
    wanted = FUNCTIONS[name]
    if not wanted.least <= len(node.args) <= wanted.most:
        raise RuleError(f"{name}() takes {wanted.least} arguments, not {len(node.args)}")
    for argument in node.args:
        _check(argument, names)


def _read_unit_call(node: ast.Call) -> Quantity:
    match node.args:
        case [ast.Constant(value=int() | float() as number), ast.Constant(value=str() as unit)]:
            _check_size(number)
            try:
                read = read_unit(unit)
            except ValueError as error:
                raise RuleError(str(error)) from None
            return Quantity(intervals.point(number * read.factor), read.dimension)
    raise RuleError(f"`{ast.unparse(node)}`: write q(NUMBER, 'UNIT'), e.g. q(1275, 'tokens/s')")


def _value(node: ast.expr, scope: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=int() | float() as number):
            return plain(float(number))
        case ast.Name():
            return _look_up(node.id, scope)
        case ast.Call(func=ast.Name(id=name)):
            if name == WITH_UNIT:
                return _read_unit_call(node)
            return FUNCTIONS[name].call(name, [_value(argument, scope) for argument in node.args])
    return _operation(node, scope)


def _operation(node: ast.expr, scope: Mapping[str, Value]) -> Value:
    match node:
        case ast.UnaryOp():
            return _unary(node, scope)
        case ast.BinOp():
            return _binary(node, scope)
        case ast.BoolOp():
            parts = [_truth(part, scope) for part in node.values]
            return truths.conjoin(parts) if isinstance(node.op, ast.And) else truths.disjoin(parts)
        case ast.Compare():
            return _comparison(node, scope)
    raise RuleError(f"`{ast.unparse(node)}` does not belong to the language of claims")


def _look_up(name: str, scope: Mapping[str, Value]) -> Value:
    if name not in scope:
        raise unknown("input or step", name, scope)
    return scope[name]


def _unary(node: ast.UnaryOp, scope: Mapping[str, Value]) -> Value:
    if isinstance(node.op, ast.Not):
        return truths.negate(_truth(node.operand, scope))
    number = _number(node.operand, scope)
    if isinstance(node.op, ast.UAdd):
        return number
    return combine(lambda a: intervals.subtract(intervals.point(0.0), a), number.dimension, number)


def _binary(node: ast.BinOp, scope: Mapping[str, Value]) -> Number:
    left, right = _number(node.left, scope), _number(node.right, scope)
    if isinstance(node.op, ast.Pow):
        return _defined(node, intervals.power, _power_dimension(node, left, right), left, right)
    if type(node.op) in _PRODUCTS:
        function, sign = _PRODUCTS[type(node.op)]
        return _defined(node, function, left.dimension.times(right.dimension, sign), left, right)
    if left.dimension != right.dimension:
        sides = " and ".join(side.dimension.symbol or "a plain number" for side in (left, right))
        raise RuleError(f"`{ast.unparse(node)}` adds up {sides}")
    return _defined(node, _SUMS[type(node.op)], left.dimension, left, right)


def _defined(node: ast.expr, function: Bounds, dimension: Dimension, *operands: Number) -> Number:
    """Combine numbers; what has no value is said with the place, and is an error where no evidence could change it."""

    def named(*each: intervals.Interval) -> intervals.Interval:
        try:
            return function(*each)
        except intervals.UndefinedError as error:
            raise intervals.UndefinedError(f"`{ast.unparse(node)}`: {error}") from None

    is_zero = isinstance(operands[-1], Quantity) and not operands[-1].rests and operands[-1].interval.mid == 0
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and is_zero:
        raise RuleError(f"`{ast.unparse(node)}` divides by zero")
    found = combine(named, dimension, *operands)
    if isinstance(found, Lacking) and all(isinstance(item, Quantity) and not item.rests for item in operands):
        raise RuleError("; ".join(cause.reason for cause in found.causes))
    return found


def _power_dimension(node: ast.BinOp, base: Number, exponent: Number) -> Dimension:
    if exponent.dimension != PLAIN:
        raise RuleError(f"`{ast.unparse(node)}`: an exponent is a plain number, not in {exponent.dimension.symbol}")
    if base.dimension == PLAIN:
        return PLAIN
    if isinstance(exponent, Quantity) and exponent.interval.is_point and not exponent.rests:
        share = Fraction(exponent.interval.mid).limit_denominator(6)
        if abs(share) > LARGEST_POWER or not math.isclose(share, exponent.interval.mid, rel_tol=1e-9):
            raise RuleError(
                f"`{ast.unparse(node)}`: no unit has such a power; write one of at most {LARGEST_POWER}, e.g. 2 or 0.5"
            )
        return base.dimension.to(share)
    raise RuleError(
        f"`{ast.unparse(node)}`: the exponent of a number in {base.dimension.symbol} must be a plain number"
    )


def _comparison(node: ast.Compare, scope: Mapping[str, Value]) -> Truth | Truths:
    sides = [node.left, *node.comparators]
    values = [_number(side, scope) for side in sides]
    found = []
    for index, symbol in enumerate(node.ops):
        say = functools.partial(_say_comparison, sides[index], symbol, sides[index + 1])
        found.append(truths.compare(values[index], _COMPARISONS[type(symbol)], values[index + 1], say))
    return found[0] if len(found) == 1 else truths.conjoin(found)


def _say_comparison(left: ast.expr, symbol: ast.cmpop, right: ast.expr) -> str:
    return f"{ast.unparse(left)} {_COMPARISONS[type(symbol)]} {ast.unparse(right)}"


def _number(node: ast.expr, scope: Mapping[str, Value]) -> Number:
    value = _value(node, scope)
    if isinstance(value, Truth | Truths):
        raise RuleError(f"`{ast.unparse(node)}` is a comparison where a number belongs")
    return value


def _truth(node: ast.expr, scope: Mapping[str, Value]) -> Truth | Truths:
    value = _value(node, scope)
    if not isinstance(value, Truth | Truths):
        raise RuleError(f"`{ast.unparse(node)}` is a number where a comparison belongs")
    return value
