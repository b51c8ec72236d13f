"""What a method of drafting does, and what it and the loop share. One method a module; each has an `open_drafter`.

A drafter takes nothing back: at every round it reads from `Rows.lengths` where each row stands, and what it cached
behind that is written over. It never waits for the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from tokbench.measure.engines import CellWork, EngineRequest
from tokbench.measure.engines.transformers.kernels import ExpertsChoice
from tokbench.measure.engines.transformers.options import Options
from tokbench.record.spec import SpeculationSpec

if TYPE_CHECKING:
    from tokbench.measure.engines.transformers.drafting.rows_cache import RowsCache
    from tokbench.measure.engines.transformers.sampling import Noise


class Rows(NamedTuple):
    """Where every row stands; tensors at fixed places on the device, int64 but for the last two.

    A row's newest token has index `lengths` in `tokens` and is not in the target's cache yet, which holds that many.
    """

    tokens: torch.Tensor
    """(rows, prompt + output + γ + 1): the prompt, then all tokens made; what stands behind `lengths` means nothing."""
    lengths: torch.Tensor
    """(rows, 1): tokens in the target's cache."""
    accepted: torch.Tensor
    """(rows, 1): drafts that the round before accepted, so that position `lengths - 1 - accepted` was its first one; 0
    after a prefill or a rewind."""
    drafts: torch.Tensor
    """(rows, γ): written by the drafter, in every round all of them."""
    drafted: torch.Tensor
    """(rows, 1): how many of these are drafts. γ to begin with; only a drafter that may find fewer writes here."""
    probabilities: torch.Tensor | None
    """(rows, γ, vocabulary), float32: the distribution that each draft was drawn from. None where the target takes the
    likeliest token, and where the drafter is a point mass."""
    hidden: torch.Tensor | None
    """(rows, γ + 1, width): what the target's final norm gave for the positions of the last verify pass; None unless
    the drafter `uses_hidden`. The state that led to the newest token stands at index `accepted`. A prefill or a rewind
    leaves the state of the last prompt token at index 0."""


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What a drafter is opened with: the target, the cell, and what the loop lends."""

    model: Any
    """The target; on its device, in evaluation mode."""
    request: EngineRequest
    work: CellWork
    options: Options
    rows: Rows
    cache: RowsCache
    """The target's."""
    capacity: int
    """Tokens that a row's cache must hold: prompt, output and γ drafts beyond."""
    noise: Noise | None
    """Where random numbers come from; None where the likeliest token is taken."""
    experts: ExpertsChoice
    """The target's."""
    keeper: Keeper
    """Keeps what is costly to make from cell to cell."""

    @property
    def speculation(self) -> SpeculationSpec:
        """How tokens are drafted."""
        assert self.work.speculation is not None  # a room is made for drafting alone
        return self.work.speculation

    @property
    def gamma(self) -> int:
        """Tokens drafted per round and row."""
        return self.speculation.gamma


class Keeper:
    """What one cell's drafter made and the next one's can take on: weights, whose compiled passes dynamo keeps too."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._kept: Any = None

    def turn_to(self, key: str | None) -> None:
        """Let go of what was kept for another key. A cell without drafts (None) must not find their memory taken."""
        if key is None or key != self._key:
            self._kept = None
        self._key = key

    def keep(self, make: Callable[[], Any]) -> Any:
        """What `make` gave for this key, now or before."""
        if self._kept is None:
            self._kept = make()
        return self._kept


class Drafter(Protocol):
    """Drafts γ tokens for every row, round after round. Fixed shapes and places: its passes can be captured."""

    is_point_mass: bool
    """Whether a draft is certain given what stands before it, so that it has no distribution to be weighed against."""
    uses_hidden: bool
    """Whether `Rows.hidden` must be kept for it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the record must say of the draft: its name, dtype, weights, bytes."""

    def prefill(self, ids: torch.Tensor, hidden: torch.Tensor | None) -> None:
        """Take the prompts, (rows, prompt), after the target did; the first output token stands in `Rows` already.

        `hidden`: (rows, prompt, width), what the target's final norm gave; None unless the drafter `uses_hidden`.
        """

    def compile(self, restart: Callable[[], None]) -> None:
        """Compile and capture the passes; only in the mode compiled, after a prefill.

        `restart` sets all rows back to just after the prefill; to be called before a pass is tried out.
        """

    def draft(self) -> None:
        """Write `Rows.drafts`, and `Rows.probabilities` where there are any, for every row. Never waits."""

    def rewind(self, position: int, now: int) -> None:
        """Go back to `position` tokens per row, from `now`; 0 means that a prefill follows.

        Raises:
            TrialError: what was cached there has been overwritten.
        """

    def cache_bytes(self) -> int:
        """Bytes of its own cache as allocated; 0 where it has none or shares the target's."""

    def close(self) -> None:
        """Let go of everything."""


OpenDrafter = Callable[[Room], Drafter]
"""The `open_drafter` of a method's module.

Raises PlugError: an option that the method does not know, or a model that it cannot draft for.
"""
