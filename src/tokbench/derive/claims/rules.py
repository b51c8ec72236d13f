"""The parsed rules of a claim's part, and the check that a row's names, steps and inputs fit together.

It evaluates nothing: whether units agree is known once the inputs are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokbench.derive.claims.expressions import RESERVED, Expression, parse
from tokbench.derive.claims.rows import AWAITED, CLAIMS_DIR, ClaimRow, Half
from tokbench.derive.claims.values import RuleError
from tokbench.derive.published.sheet import read_sheet
from tokbench.errors import DataError


class Rules:
    """The parsed rules of one part, and the inputs that they really use."""

    def __init__(self, row: ClaimRow, half: Half) -> None:
        """Parse every expression. Raises: DataError that names the field."""
        self._where = where = f"parts.{half.name}." if row.parts else ""
        self.steps = {name: _parse(row, f"{where}let.{name}", text) for name, text in half.let.items()}
        self.supports = _parse(row, f"{where}supports_if", half.supports_if)
        self.refutes = _parse(row, f"{where}refutes_if", half.refutes_if)
        self._check_names(row, where)

    def field(self, name: str) -> str:
        """The field of the row that a rule or step stands in."""
        return f"{self._where}{name}"

    def inputs_of(self, *expressions: Expression) -> frozenset[str]:
        """The inputs that expressions use, through the steps."""
        found: set[str] = set()
        wanted = [name for expression in expressions for name in expression.names]
        while wanted:
            name = wanted.pop()
            if name in self.steps:
                wanted += self.steps[name].names
            else:
                found.add(name)
        return frozenset(found)

    def _check_names(self, row: ClaimRow, where: str) -> None:
        for field, rule in (("supports_if", self.supports), ("refutes_if", self.refutes)):
            if not self.inputs_of(rule):
                raise fault(row, f"{where}{field}", "it names no input, so that no evidence could ever change it")
        known = {name for name, item in row.inputs.items() if item.decides}
        for name, step in self.steps.items():
            if name in row.inputs or name in RESERVED:
                raise fault(row, f"{where}let.{name}", "the name is that of an input or a function")
            _check_known(row, f"{where}let.{name}", step, known)
            known.add(name)
        _check_known(row, f"{where}supports_if", self.supports, known)
        _check_known(row, f"{where}refutes_if", self.refutes, known)


def load_claims(files: Mapping[str, Path] | None = None) -> tuple[ClaimRow, ...]:
    """Read every row of the package, or of the files that are given by name, and parse their rules.

    Raises:
        DataError: a file, a row, a field or an expression is wrong, or an id stands twice.
    """
    if files is None:
        files = {path.name: path for path in sorted(CLAIMS_DIR.glob("*.yaml")) if path != AWAITED}
    found: dict[str, ClaimRow] = {}
    for name, path in files.items():
        for read in read_sheet(path, "claims", ClaimRow):
            row = read.model_copy(update={"file": name})
            if row.id in found:
                raise DataError("stands twice", file=name, row=row.id, field="id")
            check_use(row)
            found[row.id] = row
    return tuple(found.values())


def check_use(row: ClaimRow) -> None:
    """Every input is used, or says that it decides nothing; a measured one comes with the command that gets it."""
    used: set[str] = set()
    for half in row.halves():
        rules = Rules(row, half)
        own = rules.inputs_of(rules.supports, rules.refutes)
        unused = rules.steps.keys() - _named_by(rules)
        if unused:
            raise fault(row, f"let.{sorted(unused)[0]}", "no rule uses this step")
        if any(row.inputs[name].measured for name in own) and half.needs is None and row.needs is None:
            raise fault(row, "needs", "a measured input needs the command that gets it")
        used |= own
    for name, item in row.inputs.items():
        if name in RESERVED:
            raise fault(row, f"inputs.{name}", "the name is that of a function")
        if item.decides and name not in used:
            raise fault(row, f"inputs.{name}", "no rule uses it; drop it, or write `decides: false`")


def _named_by(rules: Rules) -> set[str]:
    return {name for item in (*rules.steps.values(), rules.supports, rules.refutes) for name in item.names}


def _check_known(row: ClaimRow, field: str, expression: Expression, known: set[str]) -> None:
    for name in sorted(expression.names - known):
        listed = ", ".join(sorted(known))
        hint = "it bears `decides: false`" if name in row.inputs else f"known here: {listed}"
        raise fault(row, field, f"there is no input or earlier step {name!r}", hint)


def _parse(row: ClaimRow, field: str, text: str) -> Expression:
    try:
        return parse(text)
    except RuleError as error:
        raise fault(row, field, str(error)) from None


def fault(row: ClaimRow, field: str, message: str, fix: str | None = None) -> DataError:
    """The error of one field of one claim."""
    return DataError(message, file=row.file, row=row.id, field=field, fix=fix)
