"""What another tool measured, as its file states it: metrics, conditions, and who stated each. Reads no file.

Aggregates and repetitions only: there are no raw events, so nothing here was judged by `validity`.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tokbench.errors import DataError, SpecError
from tokbench.record.facts import Conditions, Weights
from tokbench.stats import Estimate, estimate, exact
from tokbench.units import Better, Unit

Origin = Literal["file", "tool", "user"]
"""Who says a condition: the file, the way in which the tool always measures, or the user (`--given`)."""
Rows = tuple[Mapping[str, object], ...]
"""The objects of a file: one, a list of them, or one per line."""

RENAMED: Final = frozenset({"model", "precision", "hardware"})
"""Names that a file gives in its own spelling (a file name, a type of most tensors): the user may put ours."""
_HUB_ID: Final = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_NOT_GIVEN: Final = frozenset({"measured_by"})
_MAY_BE_ZERO: Final = frozenset({"prompt_tokens"})

PositiveFloat = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(strict=True, gt=0)]
Count = Annotated[int, Field(strict=True, ge=0)]
Text = Annotated[str, Field(min_length=1)]


class ForeignRow(BaseModel):
    """Base of what a tool writes; keys that are not needed are passed over: a tool may add some in any version."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


@dataclasses.dataclass(frozen=True, slots=True)
class ImportedMetric:
    """One quantity of one cell. Without `values` the file held only the aggregate `value`, named by `statistic`."""

    name: str
    unit: Unit
    better: Better
    values: tuple[float, ...]
    """One per repetition, all of one process, in the order measured."""
    value: float
    statistic: str
    n: int
    """Repetitions, or requests, behind `value`."""


@dataclasses.dataclass(frozen=True, slots=True)
class ImportedCell:
    """One result with a name that is the same in every file of the tool."""

    key: str
    metrics: tuple[ImportedMetric, ...]
    conditions: Conditions
    settings: Mapping[str, str]
    """What else the file states of machine, versions and options."""
    decisive: frozenset[str]
    """The settings that have to be alike in two cells that are compared."""
    options: str = ""
    """All options of the tool as one text; tells cells of one key apart."""
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Metrics that the file does not tell, each with the reason."""
    origins: Mapping[str, Origin] = dataclasses.field(default_factory=dict)
    """Who stated each condition that is not None."""
    free: frozenset[str] = frozenset()
    """Conditions that none of the metrics depends on: they keep no two cells from being compared."""
    notes: tuple[str, ...] = ()
    """What a reader has to know of the numbers."""

    @property
    def identity(self) -> str:
        """Alike in no two cells of a file."""
        return f"{self.key} {self.options}".rstrip()


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """One file of another tool."""

    tool: str
    cells: tuple[ImportedCell, ...]


def estimate_of(metric: ImportedMetric) -> Estimate:
    """The value with the interval over its repetitions; without an interval where the file has the aggregate alone."""
    if metric.values:
        return estimate(metric.values, metric.unit.symbol)
    return dataclasses.replace(exact(metric.value, metric.unit.symbol, metric.n), statistic=metric.statistic)


class Settled(NamedTuple):
    """Conditions and who stated them."""

    conditions: Conditions
    origins: dict[str, Origin]


def settle(stated: Conditions, by_tool: Conditions, given: Conditions) -> Settled:
    """Join what the file states, what holds of every run of the tool, and what the user adds.

    Raises:
        SpecError: the user gives a value that the file contradicts.
    """
    in_file, of_tool, of_user = (dataclasses.asdict(part) for part in (stated, by_tool, given))
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for name, user in of_user.items():
        known = of_tool[name] if in_file[name] is None else in_file[name]
        origin: Origin = "tool" if in_file[name] is None else "file"
        if user is not None and user != known:
            if known is not None and name not in RENAMED:
                fault = f"{name}={user} is given, and it is {known} by the {origin}"
                raise SpecError(fault, key="--given", fix=f"leave {name} out, or import the file by itself")
            known, origin = user, "user"
        values[name] = known
        if known is not None:
            origins[name] = origin
    return Settled(Conditions(**values), origins)


def with_context(settled: Settled) -> Conditions:
    """The conditions with the context that both lengths make, where nobody states one."""
    known = settled.conditions
    if known.prompt_tokens is None or known.output_tokens is None or known.context_tokens is not None:
        return known
    settled.origins["context_tokens"] = settled.origins["output_tokens"]
    return dataclasses.replace(known, context_tokens=known.prompt_tokens + known.output_tokens)


def stated_otherwise(stated: Conditions, settled: Settled) -> dict[str, str]:
    """What the file calls the conditions that the user renamed, as settings."""
    in_file = dataclasses.asdict(stated)
    renamed = [name for name in sorted(RENAMED) if settled.origins.get(name) == "user" and in_file[name] is not None]
    return {f"{name} in the file": str(in_file[name]) for name in renamed}


def read_given(texts: Sequence[str]) -> Conditions:
    """Conditions that the user states: KEY=VALUE each.

    Raises:
        SpecError: no such condition, no value, or one that it cannot have.
    """
    names = [field.name for field in dataclasses.fields(Conditions) if field.name not in _NOT_GIVEN]
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            fix = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(names)}"
            raise SpecError(f"{text!r} states no condition that is known", key="--given", fix=fix)
        if not value or name in found:
            fault = f"{name} is given twice" if name in found else f"{text!r} has no value"
            raise SpecError(fault, key="--given", fix=f"--given {name}=VALUE, once")
        found[name] = value
    try:
        given: Conditions = TypeAdapter(Conditions).validate_python(found)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        raise SpecError(f"{name}={found[name]} is no whole number", key="--given", fix="give a count") from None
    _check_given(given)
    return given


def _check_given(given: Conditions) -> None:
    for name, value in dataclasses.asdict(given).items():
        if isinstance(value, int) and value < (0 if name in _MAY_BE_ZERO else 1):
            raise SpecError(f"{name}={value} cannot be", key="--given", fix="give a count")
    if given.weights is not None and given.weights not in get_args(Weights):
        fix = f"use one of: {', '.join(get_args(Weights))}"
        raise SpecError(f"weights={given.weights} is not known", key="--given", fix=fix)


RowModel = TypeVar("RowModel", bound=BaseModel)


def parse_row(model: type[RowModel], row: Mapping[str, object], file: str, number: int | None, tool: str) -> RowModel:
    """One object of a file by its model; `number` counts from 1, None where the file is one object.

    Raises:
        DataError: a field is missing or cannot be, with file, row and field.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        fix = f"write it anew with {tool}, or import a whole file of it"
        message = f"{first['msg']}: not as {tool} writes it"
        place = None if number is None else str(number)
        raise DataError(message, file=file, row=place, field=where or None, fix=fix) from None


def one_stream(conditions: Conditions) -> frozenset[str]:
    """`static_batch` where one stream runs: a batch of one and one request at a time are then the same."""
    return frozenset({"static_batch"}) if conditions.concurrency == 1 else frozenset()


def model_name(model_id: str) -> str:
    """A hub's `owner/name` as it is; of a path the last part."""
    return model_id if _HUB_ID.fullmatch(model_id) else last_part(model_id)


def last_part(name: str) -> str:
    """A name without the folders ahead of it: they may name a machine or a person."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]
