"""What was seen: the union of raw events in `events.jsonl`. No field is computed from another.

Times `…_at_ns` are readings of the parent's and worker's one monotonic clock (CLOCK_MONOTONIC is system-wide).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from tokbench.record.blocks import BlockStarted as BlockStarted  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.blocks import Purpose
from tokbench.record.facts import CeilingFacts, DeviceFacts, EngineFacts, Frozen, HostFacts, ModelFacts
from tokbench.record.probes import ExperimentPoint as ExperimentPoint  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.probes import ExpertTouches as ExpertTouches  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.probes import PromptsStaged as PromptsStaged  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.probes import ReadPass as ReadPass  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.probes import SpeculationRounds as SpeculationRounds  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.probes import StampedBy as StampedBy  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.readings import CounterPeriod as CounterPeriod  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.readings import EnergyReading as EnergyReading  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.readings import LoadSample as LoadSample  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.readings import MemoryReading as MemoryReading  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.readings import MeterAbsent as MeterAbsent  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.readings import MeterOpened as MeterOpened  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.readings import PowerReading as PowerReading  # noqa: PLC0414 -- its readers import it from here
from tokbench.record.spec import StopSpec

SCHEMA_VERSION = 1
WindowKind = Literal["warmup", "idle", "prefill", "decode", "ceiling", "experiment", "energy_prefill", "energy_decode"]
FailureCause = Literal["oom", "timeout", "killed", "crashed", "engine", "skipped"]


class RunStarted(Frozen):
    """The first line of a record."""

    event: Literal["run_started"] = "run_started"
    schema_version: int
    tokbench_version: str
    config_sha256: str
    seed: int
    at_ns: int
    utc: str
    """Wall clock, for display only."""
    command: tuple[str, ...] = ()
    stop: StopSpec | None = None
    """The stop rule as resolved, defaults of that version included; None in records from before it was kept."""


class RunEnded(Frozen):
    """The run came to an end by itself or was asked to stop; absent after a crash."""

    event: Literal["run_ended"] = "run_ended"
    reason: Literal["complete", "budget", "interrupted", "terminated"]
    at_ns: int


class FactsRead(Frozen):
    """Facts as read at one moment; those of a group name it."""

    event: Literal["facts_read"] = "facts_read"
    at_ns: int
    group: str | None = None
    host: HostFacts | None = None
    device: DeviceFacts | None = None
    device_choice: str | None = None
    model: ModelFacts | None = None
    engine: EngineFacts | None = None
    ceilings: CeilingFacts | None = None
    load_s: float | None = None
    """Wall time from the worker's start until the weights were on the device."""


class ClockAnchor(Frozen):
    """One device clock reading tied to the host clock: the host stamps before and after a synchronised event."""

    event: Literal["clock_anchor"] = "clock_anchor"
    group: str
    before_at_ns: int
    after_at_ns: int
    label: str


class CellPlanned(Frozen):
    """One point of the sweep as resolved; its id is the hash of `resolved`."""

    event: Literal["cell_planned"] = "cell_planned"
    cell_id: str
    pair_key: str
    group: str
    resolved: str
    """Canonical JSON of the cell."""
    labels: dict[str, str] = Field(default_factory=dict)
    predicted_memory_bytes: int | None = None
    roofline_decode_tokens_per_s: float | None = None


class CellSkipped(Frozen):
    """A cell that was not run, and why."""

    event: Literal["cell_skipped"] = "cell_skipped"
    cell_id: str
    cause: FailureCause
    reason: str
    at_ns: int


class CellPrepared(Frozen):
    """Allocation, compilation and capture of a cell are over; none of it stands in a window."""

    event: Literal["cell_prepared"] = "cell_prepared"
    cell_id: str
    worker_id: str
    at_ns: int
    prepare_s: float
    compile_s: float | None = None
    cache_rows: int | None = None
    """Tokens per sequence that the KV cache was allocated for."""
    kv_bytes_allocated: int | None = None
    graphs_compiled: int | None = None
    kernels_per_step: int | None = None
    """Kernels that one decode step launches; None where they cannot be counted."""
    kernels_counted_by: str | None = None
    """How they were counted, or why they could not be."""
    engine: EngineFacts | None = None


class TrialStarted(Frozen):
    """One repetition of a cell begins."""

    event: Literal["trial_started"] = "trial_started"
    trial_id: str
    cell_id: str
    repetition: int
    block: int
    order: int
    """Position in the sequence of all trials of the run."""
    worker_id: str
    at_ns: int
    purpose: Purpose = "measure"


class WindowOpened(Frozen):
    """A stretch of time that one kind of work fills."""

    event: Literal["window_opened"] = "window_opened"
    trial_id: str
    window_id: str
    kind: WindowKind
    at_ns: int


class WindowClosed(Frozen):
    """The end of a window; all work in it is finished, none is in flight."""

    event: Literal["window_closed"] = "window_closed"
    trial_id: str
    window_id: str
    at_ns: int
    cpu_s: float | None = None
    """CPU seconds of the worker's process within the window."""
    host_s: float | None = None
    """Time the host spent launching, where the device runs apart from it."""


class StepTrace(Frozen):
    """Step stamps of one static batch within one window."""

    event: Literal["step_trace"] = "step_trace"
    trial_id: str
    window_id: str
    start_at_ns: int
    """When the first step began: all earlier work was finished."""
    step_at_ns: tuple[int, ...]
    """When each stamped step was finished."""
    tokens_per_row: tuple[int, ...]
    """Output tokens per row that each stamp stands for (1, more with speculation or coarse stamps)."""
    rows: int
    context_tokens: int
    """Tokens per row in the cache when the first step began."""
    tokens_by_row: tuple[tuple[int, ...], ...] = ()
    """Where rows advance apart: output tokens of each row at each stamp, (stamps, rows); `tokens_per_row` is then the
    least of them, and a row that has all of its tokens gets no more."""
    stamped_by: StampedBy
    clock_error_s: float | None
    """How far a stamp can be from the host clock; None when both are the same clock."""


class RequestTrace(Frozen):
    """One request as a client saw it."""

    event: Literal["request_trace"] = "request_trace"
    trial_id: str
    request_id: str
    scheduled_at_ns: int | None
    sent_at_ns: int
    chunk_at_ns: tuple[int, ...]
    read_at_ns: tuple[int, ...] = ()
    chunk_tokens: tuple[int, ...]
    chunk_channel: tuple[Literal["answer", "reasoning", "none"], ...] = ()
    prompt_tokens: int
    tokens_counted_by: Literal["engine", "tokenizer", "script"]
    stamped_by: StampedBy
    clock_error_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None


class OutputTokens(Frozen):
    """The tokens that a trial produced, row by row; kept for the first trial of a cell."""

    event: Literal["output_tokens"] = "output_tokens"
    trial_id: str
    token_ids: tuple[tuple[int, ...], ...]


class IdentityChecked(Frozen):
    """Our tokens set beside a reference's on the same prompt, row 0."""

    event: Literal["identity_checked"] = "identity_checked"
    cell_id: str
    reference: str
    tokens_compared: int
    first_divergence: int | None
    """Index of the first token that differs; None when none does."""
    top2_gap: float | None = None
    """Difference of the two largest reference logits at that token."""


class RepeatabilityChecked(Frozen):
    """The same prompts worked through twice, and what came out set side by side."""

    event: Literal["repeatability_checked"] = "repeatability_checked"
    cell_id: str
    against: Literal["itself", "alone"]
    """`itself`: the whole static batch a second time; `alone`: row 0 by itself, beside row 0 within the batch."""
    steps: int
    tokens_equal: bool
    states_equal: bool | None
    """Whether all cached keys and values are the same, bit by bit; None where the engine does not show them."""
    max_abs_difference: float | None
    """Largest absolute difference of two of them; None where the engine does not show them."""


class TrialFinished(Frozen):
    """A repetition came to its end; everything before this line belongs to it."""

    event: Literal["trial_finished"] = "trial_finished"
    trial_id: str
    at_ns: int
    is_steady: bool | None = None
    """Whether the warm-up before it ended by the rule; None where it had none of its own."""


class TrialFailed(Frozen):
    """A repetition that gave no result; the cause is recorded, the run goes on."""

    event: Literal["trial_failed"] = "trial_failed"
    trial_id: str
    cell_id: str
    at_ns: int
    cause: FailureCause
    message: str
    traceback: str | None = None


Event = Annotated[
    RunStarted
    | RunEnded
    | FactsRead
    | ClockAnchor
    | CellPlanned
    | CellSkipped
    | CellPrepared
    | BlockStarted
    | TrialStarted
    | WindowOpened
    | WindowClosed
    | StepTrace
    | RequestTrace
    | SpeculationRounds
    | ExpertTouches
    | ExperimentPoint
    | PromptsStaged
    | ReadPass
    | EnergyReading
    | PowerReading
    | MeterAbsent
    | MeterOpened
    | CounterPeriod
    | LoadSample
    | MemoryReading
    | OutputTokens
    | IdentityChecked
    | RepeatabilityChecked
    | TrialFinished
    | TrialFailed,
    Field(discriminator="event"),
]
EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)
