"""What is asked of an engine and what it answers: the values that pass through the socket. They do nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

from tokbench.record.spec import ModelSpec, SpeculationSpec


@dataclasses.dataclass(frozen=True, slots=True)
class DraftModel:
    """A model that drafts, brought to this disk by the parent."""

    model: ModelSpec
    name: str
    config_json: str | None
    weights_folder: Path | None
    """None for random weights."""


@dataclasses.dataclass(frozen=True, slots=True)
class CellWork:
    """What one cell asks of a step engine."""

    prompts: tuple[tuple[int, ...], ...]
    """Token ids, one tuple a row, all of one length."""
    output_tokens: int
    temperature: float = 0.0
    """0 takes the likeliest token; above it tokens are drawn, from a generator that `seed` begins."""
    seed: int = 0
    speculation: SpeculationSpec | None = None
    """How tokens are drafted; None decodes one token per forward pass."""
    draft: DraftModel | None = None

    @property
    def rows(self) -> int:
        """Sequences in one forward pass."""
        return len(self.prompts)

    @property
    def prompt_tokens(self) -> int:
        """Tokens in each prompt."""
        return len(self.prompts[0])


class Round(NamedTuple):
    """One round of drafting and verifying; one entry a row. A row that has all of its tokens has 0 everywhere."""

    drafted: tuple[int, ...]
    accepted: tuple[int, ...]
    emitted: tuple[int, ...]
    """Output tokens that each row got: accepted + 1, fewer where the last round was cut at the row's end."""
    position: tuple[int, ...]
    """Tokens in each row's cache when the round began."""
    draft_s: float
    verify_s: float
    other_s: float


class Step(NamedTuple):
    """One finished forward pass of a static batch."""

    at_ns: int
    tokens_per_row: int
    """Output tokens that every row got since the last stamp; the least of them where rows advance apart."""
    round: Round | None = None
    """Where tokens were drafted."""


class Anchor(NamedTuple):
    """Host stamps around one event of the device clock, as in `ClockAnchor`."""

    before_at_ns: int
    after_at_ns: int
    label: str


class Prepared(NamedTuple):
    """What preparing a cell left behind."""

    cache_rows: int | None
    kv_bytes_allocated: int | None
    compile_s: float | None
    kernels_per_step: int | None = None
    """Kernels that one decode step launches; None where they cannot be counted."""
    kernels_counted_by: str | None = None
    """How they were counted, or why they could not be."""


class MemoryNow(NamedTuple):
    """Bytes in use by one source, named as in `MemoryReading.source`."""

    source: str
    value_bytes: int


class Divergence(NamedTuple):
    """Our tokens beside a reference's."""

    reference: str
    tokens_compared: int
    first_divergence: int | None
    top2_gap: float | None


class Repeat(NamedTuple):
    """The same prompts worked through twice, as in `RepeatabilityChecked`."""

    against: Literal["itself", "alone"]
    """`itself`: the whole static batch a second time; `alone`: row 0 by itself, beside row 0 within the batch."""
    steps: int
    tokens_equal: bool
    states_equal: bool | None
    """All cached keys and values, bit by bit; None where the engine does not show them."""
    max_abs_difference: float | None


class Chunk(NamedTuple):
    """Tokens of one request that arrived together."""

    request_id: str
    at_ns: int
    tokens: int
    finish_reason: str | None = None
    error: str | None = None


class Request(NamedTuple):
    """One prompt to be answered."""

    request_id: str
    prompt: tuple[int, ...]
    output_tokens: int
