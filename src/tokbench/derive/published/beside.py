"""Published figures: rows of `data/published/*.yaml`, checked, and set beside a number of ours with every difference.

It never divides two numbers without the list of conditions that differ or are unknown, and never takes what a source
does not state for something that agrees with ours.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.resources
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from tokbench import units
from tokbench.errors import DataError, SpecError
from tokbench.record.facts import Agreement, Conditions, Difference, Frozen, differences
from tokbench.record.yaml_tree import Plain, parse_tree
from tokbench.stats import Estimate

METRIC_UNITS: Final[Mapping[str, units.Unit]] = {
    **dict.fromkeys(("decode_tokens_per_s", "e2e_tokens_per_s", "output_tokens_per_s"), units.TOKENS_PER_S),
    **dict.fromkeys(("ttft_s", "ttfa_s", "e2e_latency_s"), units.SECONDS),
    "mean_power_w": units.WATTS,
    "energy_j_per_output_token": units.JOULES_PER_TOKEN,
    "price_usd_per_million_input_tokens": units.USD_PER_MILLION,
    "price_usd_per_million_output_tokens": units.USD_PER_MILLION,
}
"""What a row may state. A price is what a customer pays; the costs of a run of ours are other metrics."""

PER_STREAM_METRICS: Final = frozenset({"decode_tokens_per_s", "e2e_tokens_per_s", "ttft_s", "ttfa_s", "e2e_latency_s"})
SIZE_CLASS: Final = 1.5
"""Two models are of one size while neither has more than this many times the parameters of the other."""

_DECISIVE: Final = ("model", "weights", "precision", "concurrency", "speculation")
_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("fp32", "32-bit"), 32),
    **dict.fromkeys(("bf16", "fp16", "16-bit"), 16),
    **dict.fromkeys(("fp8", "int8", "8-bit"), 8),
    **dict.fromkeys(("fp4", "int4", "mxfp4", "nvfp4", "4-bit"), 4),
}
_VARIANT_SUFFIX: Final = re.compile(
    r"(\.gguf|-(instruct|chat|hf|it|instant|versatile|specdec|gguf|awq|gptq"
    r"|bf16|fp16|fp8|fp4|nvfp4|mxfp4|int8|int4|q\d(-k)?(-[0-9sml])?))$"
)

Match = Literal["same_model", "same_size_class", "nearest_size"]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]
Text = Annotated[str, Field(min_length=1)]


class PublishedFigure(Frozen):
    """One number that a vendor or a third party published, with the conditions that its source states."""

    model_config = ConfigDict(strict=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    vendor: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    system: Text
    deployment: Literal["cloud-endpoint", "on-prem-system", "lab-demo"]
    model: Text | None = None  # None: the figure is of a machine, not of a model on it
    total_params_b: Positive | None = None
    active_params_b: Positive | None = None
    precision: str | None = None  # `16-bit`, `8-bit` … where the source gives the width and not the type
    speculation: Literal["none", "speculative-decoding"] | None = None
    metric: str
    value: Positive
    unit: str
    excludes_ttft: bool | None = None  # whether a rate leaves out the time to the first token
    statistic: Literal["peak", "median", "average", "at_least", "rated"] | None = None
    """`at_least`: the source gives a floor. `rated`: a nameplate value, not a measurement."""
    scenario: Literal["single-stream", "server", "offline"] | None = None
    concurrency: Count | None = None  # 1: one stream as the client sees it; the load of the machine is not known
    devices: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    measured_by: Text
    is_primary: bool  # whether it was read in the source itself
    repeats: str | None = None  # the row that first holds the same statement: together they are one piece of evidence
    superseded_by: str | None = None  # the row of a later reading of the same page
    includes_network: bool | None = None
    available_until: str | None = None  # last day of the offer, or the first date known without it
    available_until_url: Url | None = None
    published: str
    read_on: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    source_url: Url
    source_title: Text
    notes: Text | None = None

    @field_validator("metric", "precision", "unit")
    @classmethod
    def _check_word(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = {"metric": tuple(METRIC_UNITS), "precision": tuple(_BITS)}.get(str(info.field_name), ())
        if info.field_name == "unit" and "metric" in info.data:
            known = (METRIC_UNITS[info.data["metric"]].symbol,)
        if value is not None and known and value not in known:
            raise ValueError(f"unknown {info.field_name} {value!r}; write one of: {', '.join(known)}")
        return value

    @field_validator("published", "available_until", "read_on")
    @classmethod
    def _check_date(cls, value: str | None) -> str | None:
        if value is not None:
            first_day(value)
        return value

    def conditions(self) -> Conditions:
        """What the source states, in the terms of our own cells."""
        return Conditions(
            model=self.model,
            weights=None if self.model is None else "pretrained",
            precision=self.precision,
            prompt_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            concurrency=self.concurrency,
            speculation=self.speculation,
            hardware=self.system,
            devices_per_stream=self.devices,
            measured_by=self.measured_by,
            as_of=self.published,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """One number of ours, and what it takes to find its match: conditions, and total and active parameters in 1e9."""

    estimate: Estimate
    metric: str  # `ttft_s.p50` is set beside figures of `ttft_s`
    conditions: Conditions
    size_b: float | None
    active_b: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """One estimate of ours beside one published figure: the ratio, and all that stands between the two."""

    vendor: str
    metric: str
    ours: Estimate
    theirs: PublishedFigure
    ours_over_theirs: float  # 0.1: our value is a tenth of theirs
    ours_over_theirs_low: float | None  # from our interval alone: published figures have none
    ours_over_theirs_high: float | None
    match: Match
    their_size_over_ours: float | None  # total parameters; None where either is not known
    their_active_size_over_ours: float | None
    differences: tuple[Difference, ...]
    unlike: tuple[str, ...]
    """The fields that keep the two from being like for like, because they differ or are not known."""
    others: tuple[Comparison, ...] = ()
    """The remaining figures of the same match, in order; only the headline has them."""

    @property
    def is_like_for_like(self) -> bool:
        """Same model and weights, definition, precision class, speculation and concurrency, all of them stated."""
        return not self.unlike

    def count(self, agreement: Agreement) -> int:
        """How many conditions are the same, different or unknown."""
        return sum(row.agreement is agreement for row in self.differences)


@dataclasses.dataclass(frozen=True, slots=True)
class NoComparison:
    """Nothing of this vendor can be set beside our number, and why."""

    vendor: str
    metric: str
    reason: str


def load_published(folder: Path | None = None) -> tuple[PublishedFigure, ...]:
    """Read the rows of the package, and those of a user's folder after them.

    Raises:
        DataError: a file, a row or a field is wrong, an id stands twice, or a row names one that is not there.
    """
    folders = [Path(str(importlib.resources.files("tokbench.data"))) / "published"]
    if folder is not None:
        if not folder.is_dir():
            raise DataError("no such folder", file=str(folder), fix="give a folder that holds YAML files of figures")
        folders.append(folder)
    figures: dict[str, PublishedFigure] = {}
    files: dict[str, str] = {}
    for file in (file for place in folders for file in sorted(place.iterdir())):
        for figure in _read_file(file) if file.name.endswith((".yaml", ".yml")) else ():
            if figure.id in figures:
                raise DataError(f"stands already in {files[figure.id]}", file=str(file), row=figure.id, field="id")
            figures[figure.id], files[figure.id] = figure, str(file)
    for figure in figures.values():
        for field, target in (("repeats", figure.repeats), ("superseded_by", figure.superseded_by)):
            if target is not None and (target not in figures or target == figure.id):
                raise DataError(f"{target!r} is no other row", file=files[figure.id], row=figure.id, field=field)
    return tuple(figures.values())


def compare_with_published(
    measured: Measured, figures: Sequence[PublishedFigure], vendors: Sequence[str]
) -> tuple[Comparison | NoComparison, ...]:
    """Set one number of ours beside the best match of each vendor, in the order of `vendors`.

    Figures of our model come first; else those of our size class by total parameters, with as many active ones before
    the rest; else the class nearest in size. Of these the newest is the headline.
    """
    return tuple(_compare_vendor(measured, vendor, figures) for vendor in dict.fromkeys(map(str.lower, vendors)))


def model_key(name: str) -> str:
    """The name of a model without its owner, its chat or precision suffix and its spelling."""
    key = re.sub(r"^(hf|path|pypi|shape):", "", name.strip().lower()).split("@")[0].rstrip("/").rsplit("/", 1)[-1]
    key = re.sub(r"^([a-z]+)(?=\d)", r"\1-", re.sub(r"[\s_:]+", "-", key).removeprefix("meta-"))
    while (shorter := _VARIANT_SUFFIX.sub("", key)) != key:
        key = shorter
    return key


def first_day(date: str) -> datetime.date:
    """The earliest day that a date, possibly only a month or a year, can mean."""
    if re.fullmatch(r"\d{4}(-\d{2}){0,2}", date) is None:
        raise ValueError(f"{date!r} is not YYYY, YYYY-MM or YYYY-MM-DD")
    return datetime.date.fromisoformat(date + "-01-01"[len(date) - 4 :])


def _read_file(file: Path) -> Iterator[PublishedFigure]:
    try:
        tree = parse_tree(file.read_text(encoding="utf-8"), file.name)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", file=str(file)) from None
    except SpecError as error:
        raise DataError(f"line {error.line}: {error.message}", file=str(file), field=error.key, fix=error.fix) from None
    rows = tree.value.get("figures") if isinstance(tree.value, dict) and len(tree.value) == 1 else None
    if not isinstance(rows, list):
        raise DataError("one key `figures` with a list of rows is expected", file=str(file))
    for number, row in enumerate(rows, start=1):
        yield _read_row(row, number, str(file))


def _read_row(row: Plain, number: int, file: str) -> PublishedFigure:
    try:
        return PublishedFigure.model_validate(row)
    except ValidationError as error:
        first, count = error.errors()[0], error.error_count()
        message = first["msg"].removeprefix("Value error, ") + (f" (and {count - 1} more)" if count > 1 else "")
        name = row.get("id") if isinstance(row, dict) else None
        field = str(first["loc"][0]) if first["loc"] else None
        raise DataError(message, file=file, row=str(name or f"number {number}"), field=field) from None


def _compare_vendor(ours: Measured, vendor: str, figures: Sequence[PublishedFigure]) -> Comparison | NoComparison:
    metric = ours.metric.split(".")[0]
    of_metric = [figure for figure in figures if figure.vendor == vendor and figure.metric == metric]
    usable = [figure for figure in of_metric if metric not in PER_STREAM_METRICS or figure.concurrency == 1]
    match, candidates = _best_match(ours, usable)
    if match is None:
        reason = "is of our model, and the sizes are not known on both sides" if usable else "is of a single stream"
        reason = (
            f"no figure of {vendor} for {metric} {reason}" if of_metric else f"no figure of {vendor} states {metric}"
        )
        return NoComparison(vendor, ours.metric, reason)
    candidates.sort(key=lambda figure: _rank(ours, figure))
    headline, *others = (_compare_one(ours, figure, match) for figure in candidates)
    return dataclasses.replace(headline, others=tuple(others))


def _best_match(ours: Measured, figures: Sequence[PublishedFigure]) -> tuple[Match | None, list[PublishedFigure]]:
    if same := [figure for figure in figures if _is_same_model(ours.conditions.model, figure.model)]:
        return "same_model", same
    factors = [_factor(_quotient(figure.total_params_b, ours.size_b)) for figure in figures]
    nearest = min(factors, default=math.inf)
    limit = SIZE_CLASS * (1.0 if nearest <= SIZE_CLASS else nearest)
    close = [figure for figure, factor in zip(figures, factors, strict=True) if factor <= limit < math.inf]
    return ("same_size_class" if nearest <= SIZE_CLASS else "nearest_size") if close else None, close


def _rank(ours: Measured, figure: PublishedFigure) -> tuple[bool, bool, int, bool, bool, str]:
    """Order within one match; a date that is only a year counts as its first day, so it never passes for newer."""
    return (
        _factor(_quotient(figure.active_params_b, ours.active_b)) > SIZE_CLASS,
        figure.superseded_by is not None,
        -first_day(figure.published).toordinal(),
        not figure.is_primary,
        figure.repeats is not None,
        figure.id,
    )


def _compare_one(ours: Measured, figure: PublishedFigure, match: Match) -> Comparison:
    mine, estimate = ours.conditions, ours.estimate
    if mine.concurrency is None:  # the sequences of one forward pass are the requests in flight
        mine = dataclasses.replace(mine, concurrency=mine.static_batch)
    rows = tuple(row._replace(agreement=_agreement(row)) for row in differences(mine, figure.conditions()))
    unlike = [row.field for row in rows if row.field in _DECISIVE and row.agreement is not Agreement.SAME]
    if "precision" in unlike and _is_same_width(mine.precision, figure.precision):
        unlike.remove("precision")
    if figure.metric == "decode_tokens_per_s" and not figure.excludes_ttft:
        unlike.append("excludes_ttft")
    return Comparison(
        vendor=figure.vendor,
        metric=ours.metric,
        ours=estimate,
        theirs=figure,
        ours_over_theirs=estimate.value / figure.value,
        ours_over_theirs_low=_quotient(estimate.low, figure.value),
        ours_over_theirs_high=_quotient(estimate.high, figure.value),
        match=match,
        their_size_over_ours=_quotient(figure.total_params_b, ours.size_b),
        their_active_size_over_ours=_quotient(figure.active_params_b, ours.active_b),
        differences=rows,
        unlike=tuple(unlike),
    )


def _agreement(row: Difference) -> Agreement:
    """Plain equality, but for names of one model, and for words that say less than ours and so settle nothing."""
    if row.agreement is not Agreement.DIFFERENT:
        return row.agreement
    ours, theirs = str(row.ours), str(row.theirs)
    if row.field == "model" and _is_same_model(ours, theirs):
        return Agreement.SAME
    is_vague = row.field == "precision" and _is_same_width(ours, theirs) and "bit" in ours + theirs
    is_vague |= row.field == "speculation" and theirs == "speculative-decoding" and ours != "none"
    return Agreement.UNKNOWN if is_vague else Agreement.DIFFERENT


def _is_same_model(ours: str | None, theirs: str | None) -> bool:
    return ours is not None and theirs is not None and model_key(ours) == model_key(theirs)


def _is_same_width(ours: str | None, theirs: str | None) -> bool:
    return ours is not None and theirs is not None and _BITS.get(ours, ours) == _BITS.get(theirs, theirs)


def _quotient(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or bottom is None else top / bottom


def _factor(quotient: float | None) -> float:
    """How many times the larger holds the smaller; infinite where either is not known."""
    return math.inf if quotient is None else max(quotient, 1 / quotient)
