"""What the runner and a worker say to each other: commands down, events and one reply up."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from tokbench.record.facts import Frozen
from tokbench.record.observations import Event, FailureCause
from tokbench.record.spec import CellSpec


class OpenGroup(Frozen):
    """Load the weights of one model in one engine and mode."""

    command: Literal["open"] = "open"
    group: str
    spec: CellSpec
    device: str
    devices: tuple[str, ...] = ()
    """All devices of a model that is split, `device` first; empty where it lies on one."""
    model_name: str
    config_json: str | None
    weights_folder: str | None
    revision: str | None
    sha256: str | None
    note: str | None
    threads: int
    seed: int


class DraftWeights(Frozen):
    """The model that drafts for a cell, as the parent resolved it."""

    model_name: str
    config_json: str | None
    weights_folder: str | None


class PrepareCell(Frozen):
    """Allocate, compile and capture for a cell."""

    command: Literal["prepare"] = "prepare"
    cell_id: str
    spec: CellSpec
    seed: int
    check_identity: bool
    check_repeat: bool = False
    draft: DraftWeights | None = None


class WarmUp(Frozen):
    """Run the prepared cell until it is steady, or until the cap."""

    command: Literal["warm_up"] = "warm_up"
    trial_id: str
    tolerance: float
    cap_s: float


class RunTrial(Frozen):
    """One measured repetition of the prepared cell."""

    command: Literal["trial"] = "trial"
    trial_id: str
    keep_tokens: bool
    seed: int
    repetition: int = 0
    """Which prompts of a frozen set it works on."""


class RunEnergy(Frozen):
    """Windows of the prepared cell that are long enough for the meters: idle, prefill, decode.

    A request engine has the idle one alone: its repetitions are steady work by themselves.
    """

    command: Literal["energy"] = "energy"
    trial_id: str
    idle_s: float
    window_s: float
    """How long each window of work lasts at least."""


class MeasureCeilings(Frozen):
    """Measure what the device can read and multiply."""

    command: Literal["ceilings"] = "ceilings"
    device: str
    dtype: str
    budget_s: float


class CloseGroup(Frozen):
    """Free everything and leave."""

    command: Literal["close"] = "close"


Command = Annotated[
    OpenGroup | PrepareCell | WarmUp | RunTrial | RunEnergy | MeasureCeilings | CloseGroup,
    Field(discriminator="command"),
]
COMMAND_ADAPTER: TypeAdapter[Command] = TypeAdapter(Command)


class Said(Frozen):
    """One event from the worker."""

    message: Literal["event"] = "event"
    event: Event


class Done(Frozen):
    """A command is finished; what it left is in the events before."""

    message: Literal["done"] = "done"
    is_steady: bool | None = None


class Failed(Frozen):
    """A command failed; the worker may be unusable after it."""

    message: Literal["failed"] = "failed"
    cause: FailureCause
    text: str
    traceback: str | None = None
    is_refusal: bool = False
    """The plug refused what was asked (a PlugError or SpecError): the run cannot go on with this group."""
    fix: str | None = None


Reply = Annotated[Said | Done | Failed, Field(discriminator="message")]
REPLY_ADAPTER: TypeAdapter[Reply] = TypeAdapter(Reply)
