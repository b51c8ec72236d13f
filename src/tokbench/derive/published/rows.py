"""Published figures as rows: one number that somebody published, with the conditions that its source states.

It compares nothing. The rows lie in `data/published/*.yaml`; a user's own folder of the same form is read after them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tokbench import units
from tokbench.derive.published.sheet import (
    Count,
    Date,
    Day,
    FieldError,
    Positive,
    Slug,
    Text,
    Url,
    first_day,
    read_sheet,
)
from tokbench.errors import DataError
from tokbench.record.catalog import DATA_DIR, load_devices
from tokbench.record.facts import Conditions, Frozen

METRIC_UNITS: Final[Mapping[str, units.Unit]] = {
    **dict.fromkeys(("decode_tokens_per_s", "e2e_tokens_per_s", "output_tokens_per_s"), units.TOKENS_PER_S),
    "output_tokens_per_s_per_device": units.TOKENS_PER_S_PER_DEVICE,
    **dict.fromkeys(("ttft_s", "ttfa_s", "e2e_latency_s"), units.SECONDS),
    **dict.fromkeys(("mean_power_w", "peak_power_w"), units.WATTS),
    "energy_j_per_output_token": units.JOULES_PER_TOKEN,
    "price_usd_per_million_input_tokens": units.USD_PER_MILLION,
    "price_usd_per_million_cached_input_tokens": units.USD_PER_MILLION,
    "price_usd_per_million_output_tokens": units.USD_PER_MILLION,
    "usd_per_million_output_tokens": units.USD_PER_MILLION,
}
"""What a row may state. A price is what a customer pays, `usd_per_million_output_tokens` what the tokens cost to make;
a rate per device is a metric of its own, so that nobody takes it for that of a system."""

PRECISION_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("fp32", "32-bit"), 32),
    **dict.fromkeys(("bf16", "fp16", "16-bit"), 16),
    **dict.fromkeys(("fp8", "int8", "8-bit"), 8),
    **dict.fromkeys(("fp4", "int4", "mxfp4", "nvfp4", "4-bit"), 4),
}

_PERCENTILES: Final[Mapping[str, str]] = {"median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
_ENERGY_METRICS: Final = ("mean_power_w", "peak_power_w", "energy_j_per_output_token")


class PublishedFigure(Frozen):
    """One number that a vendor or a third party published, with the conditions that its source states."""

    model_config = ConfigDict(strict=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    vendor: Slug
    system: Text
    deployment: Literal["cloud-endpoint", "cloud-instance", "on-prem-system", "lab-demo"]
    """`cloud-instance`: a rented machine with the measurer's own software on it."""
    model: Text | None = None  # None: the figure is of a machine, not of a model on it
    total_params_b: Positive | None = None
    active_params_b: Positive | None = None
    precision: str | None = None  # `16-bit`, `8-bit` … where the source gives the width and not the type
    quantisation: Text | None = None  # the scheme in the source's words, e.g. `Q4_K_M`
    speculation: Literal["none", "speculative-decoding"] | None = None
    engine: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")] | None = None
    engine_version: Text | None = None
    metric: str
    value: Positive
    value_low: Positive | None = None  # the source states a range, of which `value` is the middle
    value_high: Positive | None = None
    unit: str
    excludes_ttft: bool | None = None  # whether a rate leaves out the time to the first token
    statistic: Literal["peak", "median", "p90", "p95", "p99", "average", "at_least", "at_most", "rated"] | None = None
    """`at_least`: the source gives a floor. `rated`: a nameplate value, no measurement. `p50` is read as `median`."""
    scenario: Literal["single-stream", "server", "interactive", "offline"] | None = None
    """The last three as in MLPerf: under a latency bound, under a stricter one, and without any."""
    concurrency: Count | None = None  # 1: one stream as the client sees it; the load of the machine is not known
    mean_concurrency: Positive | None = None  # sequences that ran together on average, where no fixed number did
    device: Text | None = None  # as data/devices.yaml names it
    devices: Count | None = None
    energy_scope: Literal["board", "module", "package", "dram", "node", "wall", "facility"] | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    benchmark: Text | None = None  # suite, round, division, accuracy target
    measured_by: Text  # `vendor`, `artificial-analysis`, `mlperf`, `third-party`
    measurer: Slug | None = None  # who it was, where `measured_by` is no name
    is_primary: bool  # whether it was read in the source itself
    derived_from: tuple[str, ...] = ()  # rows that we computed it from: the source does not print it
    repeats: str | None = None  # the row that first holds the same statement: together they are one piece of evidence
    superseded_by: str | None = None  # the row of a later reading of the same page
    region: Text | None = None
    includes_network: bool | None = None
    available_until: Date | None = None  # last day of the offer, or the first date known without it
    available_until_url: Url | None = None
    published: Date
    read_on: Day
    source_url: Url
    source_title: Text
    notes: Text | None = None

    @field_validator("metric", "precision", "unit")
    @classmethod
    def _check_word(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = {"metric": tuple(METRIC_UNITS), "precision": tuple(PRECISION_BITS)}.get(str(info.field_name), ())
        if info.field_name == "unit" and "metric" in info.data:
            known = (METRIC_UNITS[info.data["metric"]].symbol,)
        if value is not None and known and value not in known:
            hint = "; a percentile stands in `statistic`" if value.partition(".")[0] in known else ""
            raise ValueError(f"unknown {info.field_name} {value!r}; write one of: {', '.join(known)}{hint}")
        return value

    @field_validator("statistic", mode="before")
    @classmethod
    def _read_p50(cls, value: object) -> object:
        return "median" if value == "p50" else value

    @field_validator("derived_from", mode="before")
    @classmethod
    def _freeze_list(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check_fields_together(self) -> PublishedFigure:
        for field, is_wrong, message in _faults(self):
            if is_wrong:
                raise FieldError(field, message)
        return self

    @property
    def metric_name(self) -> str:
        """The metric with its percentile, e.g. `ttft_s.p99`: the names of our own results."""
        percentile = _PERCENTILES.get(self.statistic or "")
        return self.metric if percentile is None else f"{self.metric}.{percentile}"

    def conditions(self) -> Conditions:
        """What the source states, in the terms of our own cells."""
        serves_one = self.concurrency == 1 or self.devices == 1
        return Conditions(
            model=self.model,
            weights=None if self.model is None else "pretrained",
            precision=self.precision,
            prompt_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            concurrency=self.concurrency,
            speculation=self.speculation,
            engine=self.engine,
            hardware=self.system,
            device_count=self.devices,
            devices_per_stream=self.devices if serves_one else None,
            measured_by=self.measured_by,
            as_of=self.published,
        )


def _faults(row: PublishedFigure) -> Iterator[tuple[str, bool, str]]:
    """Field, whether it is wrong in the light of the others, and what is."""
    total, active = row.total_params_b, row.active_params_b
    is_bare = (row.value_low is None) != (row.value_high is None)
    yield "value_low", is_bare, "a range needs value_low and value_high"
    is_outside = not (row.value_low or row.value) <= row.value <= (row.value_high or row.value)
    yield "value", is_outside, "lies outside its range"
    yield "active_params_b", active is not None and (total or 0) < active, "more than total_params_b"
    is_single = row.scenario == "single-stream"
    yield "concurrency", is_single and row.concurrency != 1, "a single stream is concurrency 1"
    is_energy = row.metric in _ENERGY_METRICS
    yield "energy_scope", row.energy_scope is not None and not is_energy, f"{row.metric} is no energy and no power"
    is_mean_peak = row.metric == "mean_power_w" and row.statistic == "peak"
    yield "metric", is_mean_peak, "a peak is no mean: write peak_power_w"
    is_named_vendor = row.measured_by == "vendor" and row.measurer is not None
    yield "measurer", is_named_vendor, "measured_by is the vendor already"
    has_no_round = row.measured_by == "mlperf" and None in (row.benchmark, row.scenario)
    yield "benchmark", has_no_round, "a figure of MLPerf names its round in `benchmark`, and its scenario"
    has_no_url = (row.available_until is None) != (row.available_until_url is None)
    yield "available_until", has_no_url, "available_until and available_until_url go together"
    yield "published", first_day(row.published) > first_day(row.read_on), f"later than it was read ({row.read_on})"


def load_published(folder: Path | None = None) -> tuple[PublishedFigure, ...]:
    """Read the rows of the package, and those of a user's folder after them.

    Raises:
        DataError: a file, a row or a field is wrong, an id stands twice, or a row names one that is not there.
    """
    folders = [DATA_DIR / "published"]
    if folder is not None:
        if not folder.is_dir():
            raise DataError("no such folder", file=str(folder), fix="give a folder that holds YAML files of figures")
        if not any(_is_sheet(file) for file in folder.iterdir()):
            raise DataError("no YAML file in it", file=str(folder), fix="its figures stand in files *.yaml or *.yml")
        folders.append(folder)
    figures: dict[str, PublishedFigure] = {}
    files: dict[str, str] = {}
    for file in (file for place in folders for file in sorted(place.iterdir())):
        for figure in read_sheet(file, "figures", PublishedFigure) if _is_sheet(file) else ():
            if figure.id in figures:
                message, fix = f"stands already in {files[figure.id]}", "give the row another id"
                raise DataError(message, file=str(file), row=figure.id, field="id", fix=fix)
            figures[figure.id], files[figure.id] = figure, str(file)
    _check_names(figures, files)
    return tuple(figures.values())


def _is_sheet(file: Path) -> bool:
    return file.suffix.lower() in (".yaml", ".yml")


def _check_names(figures: Mapping[str, PublishedFigure], files: Mapping[str, str]) -> None:
    """Refuse a row that names a row or a device that is not there."""
    devices = [row.name for row in load_devices()]
    for figure in figures.values():
        for field, message in _link_faults(figure, figures):
            fix = "name the id of another row of the same vendor and metric; or leave the field out"
            raise DataError(message, file=files[figure.id], row=figure.id, field=field, fix=fix)
        for target in figure.derived_from:
            if target not in figures or target == figure.id:
                message, fix = f"{target!r} is no other row", "name the ids of the rows that the value comes from"
                raise DataError(message, file=files[figure.id], row=figure.id, field="derived_from", fix=fix)
        if figure.device is not None and figure.device not in devices:
            near = ", ".join(difflib.get_close_matches(figure.device, devices, n=3, cutoff=0.4))
            fix = f"name a row of data/devices.yaml{f', e.g. {near}' if near else ''}; or leave the field out"
            message = f"{figure.device!r} is no device of data/devices.yaml"
            raise DataError(message, file=files[figure.id], row=figure.id, field="device", fix=fix)


def _link_faults(figure: PublishedFigure, figures: Mapping[str, PublishedFigure]) -> Iterator[tuple[str, str]]:
    """Field and fault: a row may repeat, or yield to, one other of its kind, and no two yield to each other."""
    for field, name in (("repeats", figure.repeats), ("superseded_by", figure.superseded_by)):
        target = None if name is None else figures.get(name)
        if name is not None and (target is None or target is figure):
            yield field, f"{name!r} is no other row"
        elif target is not None and (target.vendor, target.metric) != (figure.vendor, figure.metric):
            yield field, f"{name!r} is of another vendor or metric"
    first = None if figure.repeats is None else figures[figure.repeats].repeats
    if first is not None:
        yield "repeats", f"{figure.repeats!r} repeats {first!r} itself: name the first"
    later, seen = figure.superseded_by, {figure.id}
    while later is not None and later not in seen:
        seen.add(later)
        later = figures[later].superseded_by if later in figures else None
    if later is not None:
        yield "superseded_by", f"leads back to {later!r}: no row would be left"
