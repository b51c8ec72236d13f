"""A step engine around a Llama that another framework than PyTorch computes: stamps, cache positions, checks.

A framework brings the arithmetic (`Computation`) and nothing else. Every step is waited for before it is stamped.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from tokbench.errors import TrialError
from tokbench.measure.engines import (
    Anchor,
    CellWork,
    Divergence,
    EngineRequest,
    MemoryNow,
    Prepared,
    Repeat,
    Step,
    Tokenizer,
)
from tokbench.measure.llama_arrays import LlamaArrays, facts_of, next_logits
from tokbench.record.facts import EngineFacts, ModelFacts

PROC = Path("/proc/self")


class Kept(NamedTuple):
    """The cache of a cell: keys and values as the framework holds them."""

    keys: Any
    values: Any


class Computation(Protocol):
    """The arithmetic of one framework."""

    def open_cache(self, rows: int, tokens: int) -> Kept:
        """An empty cache of so many tokens a row."""

    def prefill(self, ids: Any, kept: Kept) -> tuple[Any, Kept]:
        """`ids`: NumPy (rows, prompt). The next token of each row, (rows,), and the cache filled from its beginning."""

    def step(self, token: Any, position: int, kept: Kept) -> tuple[Any, Kept]:
        """One token for each row; `position` tokens are in the cache before it."""

    def wait(self, token: Any) -> None:
        """Until the token is computed."""

    def to_host(self, array: Any) -> Any:
        """As NumPy."""

    @property
    def graphs_compiled(self) -> int | None:
        """Programs compiled so far; None where the framework compiles none or does not tell."""


class ArrayEngine:
    """One Llama in one framework."""

    def __init__(
        self, request: EngineRequest, arrays: LlamaArrays, computation: Computation, facts: EngineFacts
    ) -> None:
        self._arrays, self._computation, self._facts = arrays, computation, facts
        self._model_facts = facts_of(request, arrays)
        self._tokenizer = _load_tokenizer(request.weights_folder)
        self._work: CellWork | None = None
        self._ids: Any = None
        self._kept: Kept | None = None
        self._made: list[Any] = []

    @property
    def facts(self) -> EngineFacts:
        """The software as it runs."""
        return self._facts.model_copy(update={"graphs_compiled": self.graphs_compiled})

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were loaded."""
        return self._model_facts

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the weights came without one."""
        return self._tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self._arrays.shape.vocabulary

    @property
    def clock_error_s(self) -> float | None:
        """None: stamps are the host's."""
        return None

    @property
    def launched_at_ns(self) -> int | None:
        """None: every step is waited for."""
        return None

    @property
    def graphs_compiled(self) -> int | None:
        """Programs compiled so far."""
        return self._computation.graphs_compiled

    def _prepared(self) -> CellWork:
        if self._work is None:
            raise TrialError("nothing was prepared", cause="engine")
        return self._work

    def prepare(self, work: CellWork) -> Prepared:
        """Allocate the cache and compile prefill and step by running both once."""
        self._work, self._made, self._kept = work, [], None
        self._ids = np.asarray(work.prompts, np.int32)
        with contextlib.suppress(OSError):
            (PROC / "clear_refs").write_text("5")  # source: proc_pid_clear_refs(5): the peak counts from now on
        begun = time.monotonic()
        self.prefill()
        list(self.decode(1))
        compile_s = time.monotonic() - begun
        size = self._cache_bytes(work)
        self.rewind(0)
        return Prepared(work.prompt_tokens + work.output_tokens, size, compile_s if self.graphs_compiled else None)

    def _cache_bytes(self, work: CellWork) -> int:
        """Keys and values of every layer and place, in float32."""
        shape, places = self._arrays.shape, work.rows * (work.prompt_tokens + work.output_tokens)
        return 2 * 4 * shape.layers * places * shape.kv_heads * shape.head_dim

    def stage(self, prompts: tuple[tuple[int, ...], ...]) -> None:
        """Take prompts of the same number and length in the place of those prepared."""
        ids = np.asarray(prompts, np.int32)
        if self._ids is None or ids.shape != self._ids.shape:
            raise TrialError("prompts can only be exchanged for as many of the same length", cause="engine")
        self._ids = ids

    def prefill(self) -> Step:
        """Process the staged prompts up to the first output token of every row."""
        work = self._prepared()
        if self._made:
            raise TrialError("a prefill needs an empty cache: rewind to 0 first", cause="engine")
        kept = self._computation.open_cache(work.rows, work.prompt_tokens + work.output_tokens)
        token, self._kept = self._computation.prefill(self._ids, kept)
        self._computation.wait(token)
        self._made = [token]
        return Step(time.monotonic_ns(), 1)

    def decode(self, steps: int) -> Iterator[Step]:
        """Make and stamp `steps` tokens per row.

        Raises:
            TrialError: nothing was prefilled, or the cell has no room for so many.
        """
        work, made = self._prepared(), len(self._made)
        if not made or not 0 < steps <= work.output_tokens - made:
            left = work.output_tokens - made
            raise TrialError(f"cannot decode {steps} steps: {left} are left after a prefill", cause="engine")
        assert self._kept is not None  # filled with the first token
        stamps = []
        for _ in range(steps):
            held = work.prompt_tokens + len(self._made) - 1
            token, self._kept = self._computation.step(self._made[-1], held, self._kept)
            self._computation.wait(token)
            stamps.append(time.monotonic_ns())
            self._made.append(token)
        return iter([Step(at_ns, 1) for at_ns in stamps])

    def rewind(self, position: int) -> None:
        """Go back to `position` tokens per row in the cache; 0 empties it.

        Raises:
            TrialError: that lies inside the prompt or ahead.
        """
        work = self._prepared()
        if position == 0:
            self._made, self._kept = [], None
            return
        held = work.prompt_tokens + len(self._made) - 1
        if not self._made or not work.prompt_tokens <= position <= held:
            said = f"the prompt has {work.prompt_tokens} tokens, the cache {held if self._made else 0}"
            raise TrialError(f"cannot rewind to {position}: {said}", cause="engine")
        self._made = self._made[: position - work.prompt_tokens + 1]

    def sync(self) -> int:
        """The host clock: nothing is in flight between calls."""
        return time.monotonic_ns()

    def anchors(self) -> list[Anchor]:
        """None: there is one clock."""
        return []

    def output_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Token ids made since the last prefill."""
        if not self._made:
            return ((),) * self._prepared().rows
        made = np.stack([np.asarray(self._computation.to_host(token)).reshape(-1) for token in self._made], 1)
        return tuple(tuple(int(token) for token in row) for row in made)

    def memory(self) -> list[MemoryNow]:
        """Resident bytes of the process: the most, and now."""
        readings = []
        with contextlib.suppress(OSError):
            for line in (PROC / "status").read_text().splitlines():
                for key, source in (("VmHWM:", "rss_peak"), ("VmRSS:", "rss_steady")):
                    if line.startswith(key):
                        readings.append(MemoryNow(source, int(line.split()[1]) * 1024))
        if readings:
            return readings
        unit = 1 if sys.platform == "darwin" else 1024
        return [MemoryNow("rss_peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)]

    def check_identity(self, tokens: int) -> Divergence | None:
        """Row 0 beside the same arithmetic in NumPy, without a cache; ends rewound.

        One pass over prompt and answer tells the likeliest token behind each: up to the first that differs it is what
        greedy steps would make.
        """
        work = self._prepared()
        count = min(tokens, work.output_tokens)
        ours = self._work_through(count - 1)[0]
        logits = next_logits(self._arrays, [*(int(token) for token in self._ids[0]), *ours[:-1]], count)
        theirs = np.argmax(logits, -1)
        first = next((index for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
        gap = None if first is None else float(np.diff(np.sort(logits[first])[-2:])[0])
        return Divergence("the same arithmetic in NumPy, greedy, without a cache", count, first, gap)

    def check_repeat(self, steps: int) -> list[Repeat]:
        """The staged prompts twice: tokens, and the cache bit for bit; ends rewound."""
        work = self._prepared()
        count = min(steps, work.output_tokens - 1)
        passes = []
        for _ in range(2):
            tokens = self._work_through(count, rewinds=False)
            assert self._kept is not None  # just filled
            passes.append((tokens, [np.array(self._computation.to_host(array)) for array in self._kept]))
            self.rewind(0)
        (one, first), (other, second) = passes
        pairs = list(zip(first, second, strict=True))
        largest = max(float(np.abs(a - b).max()) for a, b in pairs)
        return [Repeat("itself", count, one == other, all(np.array_equal(a, b) for a, b in pairs), largest)]

    def _work_through(self, steps: int, *, rewinds: bool = True) -> tuple[tuple[int, ...], ...]:
        self.rewind(0)
        self.prefill()
        if steps:
            list(self.decode(steps))
        tokens = self.output_tokens()
        if rewinds:
            self.rewind(0)
        return tokens

    def close(self) -> None:
        """Let go of cache and weights."""
        self._work = self._kept = None
        self._made = []


def _load_tokenizer(folder: Path | None) -> Tokenizer | None:
    path = None if folder is None else folder / "tokenizer.json"
    return FolderTokenizer(path) if path is not None and path.is_file() else None


class FolderTokenizer:
    """The tokenizer beside the weights, without special tokens."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer as Library  # only where weights come with one

        self._tokenizer = Library.from_file(str(path))

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
