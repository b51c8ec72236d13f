"""What the engine needs of vLLM: the seam between it and the library, and where tests put a script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol


class Delivery(NamedTuple):
    """Tokens that one step brought to one request."""

    request_id: str
    tokens: tuple[int, ...]
    finish_reason: str | None


class SessionFacts(NamedTuple):
    """How vLLM really runs."""

    versions: dict[str, str]
    dtype: str
    kv_dtype: str
    attention: str | None
    """None where it runs in processes of vLLM's own."""
    vocabulary: int
    threads: int
    has_graphs: bool
    cache_tokens: int
    cache_bytes: int | None
    environment: dict[str, str]
    """Variables that were set for it."""
    notes: tuple[str, ...]


class Session(Protocol):
    """One open vLLM engine."""

    @property
    def facts(self) -> SessionFacts:
        """How it really runs."""

    @property
    def model(self) -> Any:
        """The loaded torch module; None where it is in other processes."""

    def add(self, request_id: str, prompt: Sequence[int], output_tokens: int) -> str | None:
        """Hand over a request; why it is refused, None where it is not."""

    def is_busy(self) -> bool:
        """Whether a request is unfinished."""

    def step(self) -> list[Delivery]:
        """One forward pass."""

    def abort(self, request_id: str) -> None:
        """Give up a request."""

    def close(self) -> None:
        """Free everything; calling it twice is allowed."""
