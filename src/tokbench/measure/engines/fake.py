"""A scripted engine on a scripted clock: exact numbers for tests, a run without any library. Nothing is computed.

Modes: `default` is a step engine, `requests` a request engine. Options (engine.options): `prefill_s_per_token`,
`step_s`, `step_s_per_row`, `jitter` (share of a step, drawn from the seed), `process_offset` (largest share by which
all times of one process are off, drawn from its id), `weight_bytes`, `kv_bytes_per_token`,
`fail_at_rows`, `fail` (oom | engine | segfault | kill | hang) and `fail_in` (prepare | prefill): from that static batch
on, preparing or prefilling fails in that way; `repeats` (default true): whether doing the same twice gives the same;
`paced` (default false): the scripted clock goes with this machine's, and the work takes as long as it says.
Drafts are scripted too: `measure/scripted_rounds.py` has the options of `speculation`.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Literal

from pydantic import ValidationError

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import (
    Anchor,
    CellWork,
    Chunk,
    Divergence,
    EngineDescription,
    EngineRequest,
    MemoryNow,
    Prepared,
    Repeat,
    Request,
    Step,
    Tokenizer,
)
from tokbench.measure.scripted_rounds import METHODS, RoundScript, play, read_script
from tokbench.record.facts import EngineFacts, Frozen, ModelFacts

DESCRIPTION = EngineDescription(
    kind="fake",
    what="scripted engine on a scripted clock, for tests and for measuring the harness itself",
    modes=("default", "requests"),
    request_modes=("requests",),
    devices=("cpu",),
    packages=(),
    extra=None,
    drafting=METHODS,
    drafting_modes=("default",),
)
VOCABULARY = 512


class FakeScript(Frozen):
    """How the fake behaves; times in seconds."""

    prefill_s_per_token: float = 0.0001
    step_s: float = 0.01
    step_s_per_row: float = 0.0
    jitter: float = 0.0
    process_offset: float = 0.0
    weight_bytes: int = 1_000_000
    kv_bytes_per_token: int = 1_000
    fail_at_rows: int | None = None
    fail: Literal["oom", "engine", "segfault", "kill", "hang"] = "engine"
    fail_in: Literal["prepare", "prefill"] = "prefill"
    repeats: bool = True
    paced: bool = False


def open_engine(request: EngineRequest) -> FakeStepEngine | FakeRequestEngine:
    """Open the scripted engine of the mode that was asked for.

    Raises:
        PlugError: an option that the script does not know.
    """
    try:
        script = FakeScript.model_validate(request.engine.options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PlugError(
            f"engine.options.{'.'.join(map(str, first['loc']))}: {first['msg']}",
            fix=f"options of the fake engine: {', '.join(FakeScript.model_fields)}",
        ) from None
    if request.engine.mode == "requests":
        return FakeRequestEngine(request, script)
    return FakeStepEngine(request, script)


class _Scripted:
    """The clock and the facts that both fakes share."""

    def __init__(self, request: EngineRequest, script: FakeScript) -> None:
        self._request = request
        self.script = script
        self._random = random.Random(request.seed)
        self._now_ns = time.monotonic_ns() if script.paced else 1_000_000_000
        self._pace = 1 + script.process_offset * random.Random(os.getpid()).uniform(-1, 1)

    def _advance(self, seconds: float) -> int:
        jitter = 1 + self.script.jitter * self._random.uniform(-1, 1) if self.script.jitter else 1.0
        self._pass(seconds * jitter * self._pace)
        return self._now_ns

    def _clock_ns(self) -> int:
        return time.monotonic_ns() if self.script.paced else self._now_ns

    def _pass(self, seconds: float) -> None:
        self._now_ns = self._clock_ns() + round(seconds * 1e9)
        if self.script.paced:
            time.sleep(max(0, self._now_ns - time.monotonic_ns()) * 1e-9)
            self._now_ns = time.monotonic_ns()

    def idle(self, seconds: float) -> None:
        """Let the clock go on without work."""
        self._pass(seconds)

    @property
    def facts(self) -> EngineFacts:
        """What a fake can truthfully say of itself."""
        return EngineFacts(
            kind="fake",
            mode=self._request.engine.mode,
            versions={},
            dtype=self._request.model.dtype,
            stamped_by="script",
        )

    @property
    def model_facts(self) -> ModelFacts:
        """Scripted weights: no number from them is a measurement."""
        return ModelFacts(
            name=self._request.model_name,
            source=self._request.model.source,
            weights="scripted",
            dtype=self._request.model.dtype,
            parameters=None,
            weight_bytes=self.script.weight_bytes,
            config_json=self._request.config_json,
        )

    @property
    def vocabulary(self) -> int:
        """Token ids below this number."""
        return VOCABULARY

    def close(self) -> None:
        """Nothing to free."""


class FakeStepEngine(_Scripted):
    """Steps of scripted length."""

    def __init__(self, request: EngineRequest, script: FakeScript) -> None:
        super().__init__(request, script)
        self._work: CellWork | None = None
        self._rounds: RoundScript | None = None
        self._position = 0
        self._made = 0

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The fake reads no text."""
        return None

    @property
    def clock_error_s(self) -> float | None:
        """One clock, no error."""
        return None

    @property
    def launched_at_ns(self) -> int | None:
        """Nothing runs apart."""
        return None

    @property
    def graphs_compiled(self) -> int | None:
        """Nothing is compiled."""
        return None

    def _staged(self) -> CellWork:
        if self._work is None:
            raise TrialError("nothing was prepared", cause="engine")
        return self._work

    def prepare(self, work: CellWork) -> Prepared:
        """Stage the work, or fail as scripted."""
        self._work = work
        self._rounds = None if work.speculation is None else read_script(work.speculation)
        self._fail_if_scripted("prepare")
        cache_rows = work.prompt_tokens + work.output_tokens
        return Prepared(cache_rows, cache_rows * work.rows * self.script.kv_bytes_per_token, None)

    def stage(self, prompts: tuple[tuple[int, ...], ...]) -> None:
        """Take other prompts of the same number and length: they make no difference to a script."""
        self._work = dataclasses.replace(self._staged(), prompts=prompts)

    def prefill(self) -> Step:
        """Advance the clock by the script's prefill, or fail as scripted."""
        work = self._staged()
        self._fail_if_scripted("prefill")
        self._position, self._made = work.prompt_tokens, 1
        return Step(self._advance(self.script.prefill_s_per_token * work.prompt_tokens * work.rows), 1)

    def _fail_if_scripted(self, where: str) -> None:
        script = self.script
        if script.fail_in == where and script.fail_at_rows is not None and self._staged().rows >= script.fail_at_rows:
            _fail(script.fail)

    def decode(self, steps: int) -> Iterator[Step]:
        """Advance the clock step by step, or round by round."""
        if self._rounds is not None:
            yield from self._draft(self._rounds, steps)
            return
        rows = self._staged().rows
        for _ in range(steps):
            self._position += 1
            self._made += 1
            yield Step(self._advance(self.script.step_s + self.script.step_s_per_row * rows), 1)

    def _draft(self, script: RoundScript, steps: int) -> Iterator[Step]:
        work = self._staged()
        for found in play(work, script, steps, self._position, self._random):
            seconds = found.draft_s + found.verify_s + found.other_s + self.script.step_s_per_row * work.rows
            yield Step(self._advance(seconds), min(found.emitted), found)
        self._position += steps
        self._made += steps

    def rewind(self, position: int) -> None:
        """Set the position back, and with it what was made since the prefill."""
        self._position = position
        self._made = position - self._staged().prompt_tokens + 1 if position else 0

    def sync(self) -> int:
        """The scripted clock now."""
        return self._clock_ns()

    def anchors(self) -> list[Anchor]:
        """One clock."""
        return []

    def output_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Counting tokens, so that a test can tell rows and steps apart."""
        rows = self._staged().rows
        return tuple(tuple((row + index) % VOCABULARY for index in range(self._made)) for row in range(rows))

    def memory(self) -> list[MemoryNow]:
        """The script's own bytes, at peak and steadily the same."""
        work = self._staged()
        cache = (work.prompt_tokens + work.output_tokens) * work.rows * self.script.kv_bytes_per_token
        value_bytes = self.script.weight_bytes + cache
        return [MemoryNow("script", value_bytes), MemoryNow("script_steady", value_bytes)]

    def check_identity(self, tokens: int) -> Divergence | None:
        """The fake has no reference."""
        return None

    def check_repeat(self, steps: int) -> list[Repeat]:
        """As scripted: all the same, or tokens that differ; the fake has no states to show."""
        self.rewind(0)
        is_same = self.script.repeats
        return [Repeat("itself", steps, is_same, None, None), Repeat("alone", steps, is_same, None, None)]


def _fail(how: str) -> None:
    if how == "oom":
        raise TrialError("scripted: out of memory", cause="oom")
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(3600)
    raise RuntimeError("scripted: the engine failed")


class FakeRequestEngine(_Scripted):
    """Requests answered side by side: one chunk of one token per request and scripted step."""

    def __init__(self, request: EngineRequest, script: FakeScript) -> None:
        super().__init__(request, script)
        self._waiting: dict[str, int] = {}
        self._prefilling: list[Request] = []

    def now(self) -> int:
        """The scripted clock now."""
        return self._clock_ns()

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._prefilling.append(request)

    def poll(self, deadline_ns: int) -> list[Chunk]:
        """One scripted step: prefill what waits, then one token for every request in flight."""
        if not self._prefilling and not self._waiting:
            self._pass(max(0, deadline_ns - self._clock_ns()) * 1e-9)
            return []
        chunks = []
        for request in self._prefilling:
            self._advance(self.script.prefill_s_per_token * len(request.prompt))
            is_last = request.output_tokens == 1
            chunks.append(Chunk(request.request_id, self._now_ns, 1, "length" if is_last else None))
            self._waiting[request.request_id] = request.output_tokens - 1
        fresh = {request.request_id for request in self._prefilling}
        self._prefilling = []
        others = [request_id for request_id in self._waiting if request_id not in fresh]
        if others:
            now = self._advance(self.script.step_s + self.script.step_s_per_row * len(others))
            for request_id in others:
                self._waiting[request_id] -= 1
                is_last = self._waiting[request_id] == 0
                chunks.append(Chunk(request_id, now, 1, "length" if is_last else None))
        self._waiting = {request_id: left for request_id, left in self._waiting.items() if left > 0}
        return chunks

    def cancel(self, request_id: str) -> None:
        """Forget a request."""
        self._waiting.pop(request_id, None)
        self._prefilling = [request for request in self._prefilling if request.request_id != request_id]
