"""Continuous batching through transformers' manager: exact tokens, true stamps, and no silence when it dies."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers.generation.continuous_batching.requests import GenerationOutput, RequestStatus  # noqa: E402

import tiny_engines  # noqa: E402
from tokbench.errors import PlugError, TrialError  # noqa: E402
from tokbench.measure import load  # noqa: E402
from tokbench.measure.engines import Chunk, Request, ReservingEngine  # noqa: E402
from tokbench.measure.engines.transformers import continuous, continuous_config, open_engine  # noqa: E402
from tokbench.measure.engines.transformers.continuous_cache import CacheSize, Room, plan_cache  # noqa: E402
from tokbench.measure.engines.transformers.continuous_identity import compare_with_generate  # noqa: E402
from tokbench.measure.engines.transformers.continuous_options import (  # noqa: E402
    ContinuousOptions,
    read_continuous_options,
)
from tokbench.record.observations import RequestTrace  # noqa: E402
from tokbench.record.spec import ClosedLoad, PoissonLoad  # noqa: E402

WAIT_NS = 50_000_000
SMALL = {"page_size": 8}


def opened(**engine: Any) -> Any:
    return open_engine(tiny_engines.request(mode="continuous", **{"options": SMALL, **engine}))


@pytest.fixture(scope="module")
def shared() -> Iterator[Any]:
    engine = opened()
    yield engine
    engine.close()


@pytest.fixture
def engine(shared: Any) -> Any:
    """The engine with room for four requests of 40 + 24 tokens."""
    shared.reserve(4, 40, 24)
    return shared


def prompts(rows: int, tokens: int = 40, seed: int = 5) -> tuple[tuple[int, ...], ...]:
    return tiny_engines.work(rows, tokens, 2, seed).prompts


def asked(rows: int, output_tokens: int = 24, tokens: int = 40) -> list[Request]:
    return [Request(f"r{n}", prompt, output_tokens) for n, prompt in enumerate(prompts(rows, tokens))]


def traces(engine: Any, requests: list[Request], concurrency: int) -> dict[str, RequestTrace]:
    closed = ClosedLoad(kind="closed", concurrency=concurrency, requests=len(requests))
    found = [event for event in load.run_closed(engine, closed, requests, "t") if isinstance(event, RequestTrace)]
    return {trace.request_id: trace for trace in found}


def until(engine: Any, count: int) -> list[Chunk]:
    """Chunks up to the `count`-th request that came to an end."""
    chunks: list[Chunk] = []
    while sum(chunk.finish_reason is not None or chunk.error is not None for chunk in chunks) < count:
        chunks += engine.poll(engine.now() + WAIT_NS)
    return chunks


def test_every_token_is_a_chunk_with_a_stamp_of_its_own(engine: Any) -> None:
    found = traces(engine, asked(6), 4)
    assert {f"r{n}" for n in range(6)} == set(found)
    for trace in found.values():
        assert (1,) * 24 == trace.chunk_tokens
        assert all(earlier < later for earlier, later in pairwise((trace.sent_at_ns, *trace.chunk_at_ns)))
        assert ("length", None, "host", "engine") == (
            trace.finish_reason,
            trace.error,
            trace.stamped_by,
            trace.tokens_counted_by,
        )


def test_a_stamp_tells_when_the_token_came_and_not_when_it_was_asked_for(engine: Any) -> None:
    engine.submit(asked(1)[0])
    processor = engine._manager.batch_processor
    while not processor.scheduler.active_requests:
        threading.Event().wait(0.001)
    while processor.has_pending_requests():  # every token is made before anybody asks
        threading.Event().wait(0.001)
    asked_at_ns = engine.now()
    chunks = until(engine, 1)
    assert [1] * 24 == [chunk.tokens for chunk in chunks]
    assert all(earlier.at_ns < later.at_ns for earlier, later in pairwise(chunks))
    assert chunks[-2].at_ns < asked_at_ns


def test_tokens_that_were_delivered_together_are_one_chunk(engine: Any) -> None:
    engine._heard["r"] = 2
    output = GenerationOutput(
        "r", generated_tokens=[5, 6, 7, 8, 9], timestamps=[1.0, 1.5, 2.0], status=RequestStatus.DECODING
    )
    assert [Chunk("r", 2_000_000_000 + engine._offset_ns, 3)] == engine._heard_of(output)
    assert 5 == engine._heard.pop("r")


def test_requests_that_are_answered_together_share_forward_passes(engine: Any) -> None:
    before = engine._manager.current_batch
    traces(engine, asked(4), 4)
    together = engine._manager.current_batch - before
    before = engine._manager.current_batch
    traces(engine, asked(4), 1)
    assert together < 2 * 24 < 4 * 24 == engine._manager.current_batch - before


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen3-moe"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_tokens_are_those_of_generate(shape: str, attention: str) -> None:
    engine = open_engine(tiny_engines.request(shape, "continuous", options=SMALL, attention=attention))
    try:
        engine.reserve(3, 40, 24)
        found = engine.check_identity(prompts(3), 24)
        assert (24, None, None) == (found.tokens_compared, found.first_divergence, found.top2_gap)
        assert f"paged|{attention}" == engine.facts.attention_kernel
        assert 6 == sum(traces(engine, asked(1, 6), 1)["r0"].chunk_tokens)  # as usable as before
    finally:
        engine.close()


def test_an_answer_that_is_not_generates_is_told_with_its_place(engine: Any) -> None:
    answers = engine._answers(prompts(2), 8)
    answers[1][5] = (answers[1][5] + 1) % engine.vocabulary
    found = compare_with_generate(engine._model, prompts(2), answers)
    assert (8, 5) == (found.tokens_compared, found.first_divergence)
    assert found.top2_gap is not None and found.top2_gap >= 0


def test_an_end_of_sequence_token_does_not_end_a_request(engine: Any) -> None:
    second = engine._answers(prompts(1), 3)[0][1]
    ending = opened(overrides={"eos_token_id": second})
    try:
        assert second == ending._model.generation_config.eos_token_id
        ending.reserve(1, 40, 24)
        assert second == ending._answers(prompts(1), 3)[0][1]
        assert 24 == sum(traces(ending, asked(1), 1)["r0"].chunk_tokens)
    finally:
        ending.close()


def test_the_same_prompt_again_shares_no_page(engine: Any) -> None:
    one = asked(1)[0]
    assert {"r0", "again"} == set(traces(engine, [one, one._replace(request_id="again")], 1))
    cache = engine._manager.batch_processor.cache
    assert cache.use_prefix_sharing is False
    assert cache.pool.num_free_sectors + cache.pool.count_free_blocks(0) == cache.num_sectors  # none is kept for later


def test_facts_tell_the_cache_the_scheduler_and_the_kernels(engine: Any) -> None:
    facts = engine.facts
    assert ("transformers", "continuous", "paged|sdpa", "host") == (
        facts.kind,
        facts.mode,
        facts.attention_kernel,
        facts.stamped_by,
    )
    assert facts.cuda_graphs is False
    notes = "; ".join(facts.notes)
    for part in (
        "scheduler fifo, asynchronous batching off",
        "cache of 38 pages of 8 tokens; at most 160 tokens",  # 4 requests of 8 pages, 15 % kept free
        "prefix cache off (allow_block_sharing=False)",
        "auto_switch_to_flash=True: sdpa kept",
        "decode fast path off",
    ):
        assert part in notes


def test_a_cache_is_made_for_each_cell_and_kept_while_the_same_is_asked(engine: Any) -> None:
    first = engine._manager
    bytes_of_four = engine.reserve(4, 40, 24).kv_bytes_allocated
    assert first is engine._manager
    assert bytes_of_four < engine.reserve(8, 40, 24).kv_bytes_allocated
    assert first is not engine._manager and not first.is_running()
    assert 24 == sum(traces(engine, asked(8), 8)["r7"].chunk_tokens)


def test_more_requests_than_the_cache_holds_wait_or_start_anew_and_all_are_answered() -> None:
    engine = opened(options={"page_size": 8, "num_blocks": 10, "max_batch_tokens": 16})
    try:
        found = traces(engine, asked(5), 5)
        assert {24} == {sum(trace.chunk_tokens) for trace in found.values()}
        for trace in found.values():
            assert list(trace.chunk_at_ns) == sorted(trace.chunk_at_ns)
        assert "cache of 10 pages of 8 tokens; at most 16 tokens" in "; ".join(engine.facts.notes)
    finally:
        engine.close()


def test_a_request_that_no_cache_holds_is_an_error_of_its_own() -> None:
    engine = opened(options={"page_size": 8, "num_blocks": 8})
    try:
        found = traces(engine, [*asked(2), Request("long", tuple(range(42)), 24)], 3)
        assert "65 tokens do not fit the cache of 64: raise engine.options.num_blocks" == found["long"].error
        assert 0 == sum(found["long"].chunk_tokens)
        assert [24, 24] == [sum(found[name].chunk_tokens) for name in ("r0", "r1")]
    finally:
        engine.close()


def test_the_largest_request_that_fits_is_answered() -> None:
    engine = opened(options={"page_size": 8, "num_blocks": 8})
    try:
        found = traces(engine, [Request("full", tuple(range(41)), 24)], 1)
        assert (24, None) == (sum(found["full"].chunk_tokens), found["full"].error)
    finally:
        engine.close()


def _break(engine: Any, error: BaseException) -> None:
    """Let the next forward pass fail."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    engine._manager.batch_processor._generation_step = fail


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("a kernel failed"), "engine"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "oom"),
    ],
)
def test_a_thread_that_dies_is_an_error_and_no_hang(error: Exception, cause: str) -> None:
    engine = opened()
    try:
        engine.reserve(4, 40, 24)
        _break(engine, error)
        with pytest.raises(TrialError, match="continuous batching stopped") as failed:
            traces(engine, asked(4), 2)
        assert cause == failed.value.cause
        assert str(error).split(".", maxsplit=1)[0] in failed.value.message
        with pytest.raises(TrialError, match="continuous batching stopped"):
            engine.submit(asked(1)[0])
        with pytest.raises(TrialError, match="continuous batching stopped"):
            engine.poll(engine.now() + WAIT_NS)
    finally:
        engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_vanishes_is_an_error_and_no_hang() -> None:
    engine = opened()
    try:
        engine.reserve(1, 40, 24)
        _break(engine, SystemExit())
        with pytest.raises(TrialError, match="its thread ended without an error") as failed:
            traces(engine, asked(1), 1)
        assert "engine" == failed.value.cause
    finally:
        engine.close()


def test_a_cache_larger_than_memory_is_out_of_memory() -> None:
    engine = opened(options={"page_size": 256, "num_blocks": 10**9})
    with pytest.raises(torch.OutOfMemoryError):
        engine.reserve(1, 40, 24)
    engine.close()


def test_closing_ends_the_thread_whatever_is_in_flight() -> None:
    engine = opened()
    engine.reserve(2, 40, 400)
    engine.submit(asked(1, 400)[0])
    engine.poll(engine.now() + WAIT_NS)
    thread = engine._manager._generation_thread
    engine.close()
    assert not thread.is_alive()
    engine.close()


def test_a_cancelled_request_gives_its_pages_back(engine: Any) -> None:
    for request in asked(2, 300):
        engine.submit(request)
    engine.poll(engine.now() + WAIT_NS)
    engine.cancel("r0")
    engine.cancel("r1")
    assert 24 == sum(traces(engine, [asked(3)[2]], 1)["r2"].chunk_tokens)
    pool = engine._manager.batch_processor.cache.pool
    assert pool.num_free_sectors + pool.count_free_blocks(0) == engine._manager.batch_processor.cache.num_sectors


def test_an_open_load_is_answered_in_full(engine: Any) -> None:
    arrivals_ns = load.poisson_arrivals_ns(PoissonLoad(kind="poisson", rate_per_s=40, duration_s=0.25), 3)
    requests = asked(len(arrivals_ns), 4)
    found = [e for e in load.run_arrivals(engine, arrivals_ns, requests, "t") if isinstance(e, RequestTrace)]
    assert len(arrivals_ns) == len(found) > 0
    for trace in found:
        assert trace.scheduled_at_ns is not None
        assert trace.scheduled_at_ns <= trace.sent_at_ns < trace.chunk_at_ns[0]
        assert 4 == sum(trace.chunk_tokens)


def test_it_can_be_asked_to_reserve_and_tells_its_memory(engine: Any) -> None:
    assert isinstance(engine, ReservingEngine)
    assert "rss_peak" in {reading.source for reading in engine.memory()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pagesize": 8}, "has no option 'pagesize'"),
        ({"compile_backend": "eager"}, "has no option 'compile_backend'"),
        ({"page_size": 3}, "3 is too small"),
        ({"num_blocks": 0}, "0 is too small"),
        ({"num_blocks": True}, "True is not a int"),
        ({"max_batch_tokens": 1.5}, "1.5 is not a int"),
        ({"scheduler": "lifo"}, "there is no 'lifo'"),
    ],
)
def test_what_is_not_known_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(PlugError, match=said):
        read_continuous_options(options)


def test_options_are_read_and_used() -> None:
    options = {"page_size": 16, "num_blocks": 12, "max_batch_tokens": 32, "scheduler": "prefill_first"}
    assert ContinuousOptions(16, 12, 32, "prefill_first") == read_continuous_options(options)
    engine = opened(options=options)
    try:
        engine.reserve(1, 8, 8)
        notes = "; ".join(engine.facts.notes)
        assert "scheduler prefill_first" in notes
        assert "cache of 12 pages of 16 tokens; at most 32 tokens" in notes
        assert 24 == sum(traces(engine, asked(2), 2)["r1"].chunk_tokens)
    finally:
        engine.close()


def test_a_kernel_without_a_paged_form_is_refused() -> None:
    engine = opened(attention="flex_attention")
    try:
        with pytest.raises(PlugError, match="no continuous batching"):
            engine.reserve(1, 8, 8)
    finally:
        engine.close()


@dataclasses.dataclass
class OlderConfig:
    """The manager's config of transformers 5.17, as far as it is told anything."""

    block_size: int = 256
    num_blocks: int | None = None
    max_batch_tokens: int | None = None
    allow_block_sharing: bool = True
    scheduler_type: str = "fifo"
    seed: int | None = None


@dataclasses.dataclass
class NewerConfig:
    """That of transformers 5.23."""

    page_size: int = 256
    auto_switch_to_flash: bool = True
    num_blocks: int | None = None
    max_batch_tokens: int | None = None
    allow_block_sharing: bool = True
    scheduler_type: str = "fifo"
    seed: int | None = None


def test_an_older_manager_is_told_the_same_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    options, size = ContinuousOptions(16, 12, 32, "prefill_first"), CacheSize(12, 32, None)
    monkeypatch.setattr(transformers, "ContinuousBatchingConfig", NewerConfig)
    newer = continuous_config.make_config(options, size, 3, may_switch=False)
    assert NewerConfig(16, False, 12, 32, False, "prefill_first", 3) == newer
    monkeypatch.setattr(transformers, "ContinuousBatchingConfig", OlderConfig)
    older = continuous_config.make_config(options, size, 3, may_switch=False)
    assert OlderConfig(16, 12, 32, False, "prefill_first", 3) == older
    config = SimpleNamespace(_attn_implementation="sdpa")
    told = lambda name: vars(config).update(_attn_implementation=name)  # noqa: E731
    model = SimpleNamespace(config=config, set_attn_implementation=told)
    continuous_config.keep_attention(model, newer)
    assert "sdpa" == model.config._attn_implementation
    for _ in range(2):
        continuous_config.keep_attention(model, older)
        assert "paged|sdpa" == model.config._attn_implementation
    pair = SimpleNamespace(key_cache=[torch.zeros(2, 3)], value_cache=[torch.zeros(2, 3)])
    assert 2 * 2 * 3 * 4 == continuous_config.cache_nbytes(pair)


def test_the_cache_is_sized_for_the_load_on_a_cpu_and_left_alone_elsewhere() -> None:
    room = Room(requests=8, prompt_tokens=100, output_tokens=29)  # 128 tokens, 8 pages of 16
    options = ContinuousOptions(page_size=16)
    assert (76, 512, None) == plan_cache(options, room, True, 1)  # 64 pages / 0.85, and no more than 512 tokens a pass
    first = dataclasses.replace(options, scheduler="prefill_first")
    assert (64, 512, None) == plan_cache(first, room, True, 1)
    short = Room(requests=3, prompt_tokens=16, output_tokens=17)
    assert (8, 48, None) == plan_cache(options, short, True, 1)  # whole prompts in one pass
    assert (None, None, None) == plan_cache(options, room, False, 1)
    named = dataclasses.replace(options, num_blocks=9, max_batch_tokens=7)
    assert (9, 7, None) == plan_cache(named, room, True, 1) == plan_cache(named, room, False, 1)


def test_a_cache_that_memory_cannot_hold_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    from tokbench.measure.engines.transformers import continuous_cache

    free = type("Free", (), {"available": 100_000})()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    room = Room(requests=8, prompt_tokens=100, output_tokens=29)
    size = continuous_cache.plan_cache(ContinuousOptions(page_size=16), room, True, 1_000)
    assert (40, "memory holds 40 of the 76 pages that 8 requests at once would take") == (size.num_blocks, size.note)
    size = continuous_cache.plan_cache(ContinuousOptions(page_size=16), room, True, 50_000)
    assert 8 == size.num_blocks  # one request, whatever is free


def test_the_clock_of_the_stamps_is_the_monotonic_one() -> None:
    offset_ns = continuous.perf_counter_offset_ns()
    before_ns = time.monotonic_ns()
    stamp_ns = round(time.perf_counter() * 1e9) + offset_ns
    assert before_ns - 1_000 <= stamp_ns <= time.monotonic_ns() + 1_000
