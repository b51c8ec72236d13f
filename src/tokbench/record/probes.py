"""What was seen inside a repetition besides stamps: drafts, experts, experiments, and which prompts it worked on."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from tokbench.record.facts import Frozen

StampedBy = Literal["host", "device_event", "kernel_rx", "script"]


class SpeculationRounds(Frozen):
    """Drafted and accepted tokens of each round of one row, until it had all of its tokens."""

    event: Literal["speculation_rounds"] = "speculation_rounds"
    trial_id: str
    row: int
    drafted: tuple[int, ...]
    accepted: tuple[int, ...]
    emitted: tuple[int, ...] = ()
    """Tokens that each round gave the row: accepted + 1, fewer only where the last one was cut at the row's end."""
    position: tuple[int, ...] = ()
    """Tokens in the row's cache when each round began."""
    draft_s: tuple[float, ...] = ()
    """Time of drafting in each round, all rows together."""
    verify_s: tuple[float, ...] = ()
    """Time of the target's forward pass and of accepting, all rows together."""
    other_s: tuple[float, ...] = ()
    """What was left of each round."""


class ExpertTouches(Frozen):
    """Distinct experts that one layer selected, step by step, in a decode like that of its repetition."""

    event: Literal["expert_touches"] = "expert_touches"
    trial_id: str
    layer: int
    """Counted among the layers with routed experts, from 0."""
    rows: int
    distinct: tuple[int, ...]
    experts: int | None = None
    """Experts of the layer."""
    copied_bytes: tuple[int, ...] = ()
    """Bytes of experts fetched from the host's memory in each step; empty where all of them lie on the device."""


class ExperimentPoint(Frozen):
    """One named window of an experiment: a duration, and what else was seen, under named settings.

    NaN and the infinite are refused: JSON has neither, and a line that holds `null` could not be read again.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    event: Literal["experiment_point"] = "experiment_point"
    trial_id: str
    window_id: str
    experiment: str
    settings: dict[str, str | int | float]
    duration_s: float
    stamped_by: StampedBy
    values: dict[str, int | float] = Field(default_factory=dict)
    """Raw counts and sums by name (tokens, bytes, nats); no ratio of two of them."""


class ReadPass(Frozen):
    """The memory read whole beside a window, with nothing else to do: what it gave at that moment."""

    event: Literal["read_pass"] = "read_pass"
    trial_id: str
    window_id: str
    side: Literal["before", "after"]
    at_ns: int
    read_bytes: int
    """Bytes of one pass: a sum over the loaded weights."""
    pass_s: tuple[float, ...]
    """How long each pass took."""


class PromptsStaged(Frozen):
    """Which prompts of a frozen set a repetition works on, row by row."""

    event: Literal["prompts_staged"] = "prompts_staged"
    trial_id: str
    task: str
    sha256: str
    """Of the set."""
    prompt_ids: tuple[str, ...]
