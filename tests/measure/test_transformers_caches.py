"""Cache lengths, windows as rings, stamps of device events and refused captures, without a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import LlamaConfig  # noqa: E402

from tokbench.measure.engines.transformers import attention, attention_choice, caches, clocks, graphs  # noqa: E402


@pytest.mark.parametrize(
    ("needed", "per_row", "step", "expected"),
    [
        (160, 1.0, 1e9, 1024),  # padding costs nothing beside the weights
        (1025, 1.0, 1e9, 2048),
        (160, 131072.0, 16e9, 512),  # Llama-3.1-8B in bfloat16, one stream: 46 MB of 16 GB, 1024 would be 113
        (151, 64 * 131072.0, 16e9, 160),  # 64 streams: the next 16 is 0.5 % of the weights, the next 64 would be 2 %
        (160, 64 * 131072.0, 16e9, 160),
        (160, 1e9, 16e9, 160),
        (161, 1e9, 16e9, 161),  # not even one row of padding is cheap enough
    ],
)
def test_padding_depends_on_the_cell_alone(needed: int, per_row: float, step: float, expected: int) -> None:
    assert expected == caches.padded_cache_rows(needed, per_row, step)
    assert expected == caches.padded_cache_rows(needed, per_row, step)


def test_a_ring_holds_the_newest_tokens_and_says_what_a_query_may_see() -> None:
    layer = caches.WindowLayer(64, 4)
    assert layer.get_seq_length() == 0
    states = torch.arange(6.0).view(1, 1, 6, 1)
    keys, _ = layer.update(states, -states)
    assert keys.flatten().tolist() == [0, 1, 2, 3, 4, 5]  # a long prompt attends to all of itself, masked
    assert layer.keys.flatten().tolist() == [4, 5, 2, 3]
    for token in (6.0, 7.0, 8.0):
        seen, _ = layer.update(torch.full((1, 1, 1, 1), token), torch.zeros(1, 1, 1, 1))
        assert set(seen.flatten().tolist()) == {token, token - 1, token - 2, token - 3}
        assert int(layer.get_seq_length()) == 3
    assert layer.get_mask_sizes(1) == (4, 0)
    assert layer.get_mask_sizes(6) == (6, 0)


def test_a_ring_that_is_not_full_hides_the_slots_ahead() -> None:
    layer = caches.WindowLayer(64, 4)
    layer.update(torch.ones(1, 1, 2, 1), torch.ones(1, 1, 2, 1))
    assert int(layer.get_seq_length()) == 2
    assert layer.keys.flatten().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("name", ["packed_attention", "split_attention", "inline_attention"])
@pytest.mark.parametrize("length", [6, 512])
@pytest.mark.parametrize("tokens", [1, 4])
def test_our_attention_is_attention_with_repeated_keys(name: str, length: int, tokens: int) -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = ((6, tokens), (2, length), (2, length))
    query, key, value = (torch.randn(2, heads, count, 8, generator=draw) for heads, count in shapes)
    newest = torch.tensor([length - 2, length - 3])[:, None, None, None] - torch.arange(tokens).flip(0)[:, None]
    mask = torch.arange(length) <= newest  # rows that stand apart
    found, _ = getattr(attention, name)(None, query, key, value, mask, scaling=0.3, dropout=0.0)
    repeated = [states.repeat_interleave(3, dim=1) for states in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *repeated, attn_mask=mask, scale=0.3)
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_a_prompt_into_an_empty_cache_needs_no_mask_and_a_later_chunk_does() -> None:
    sizes = {"batch_size": 1, "q_length": 4, "kv_length": 9, "q_offset": torch.tensor(2)}
    try:
        attention.set_prefill_from_empty(True)
        assert attention.mask_unless_causal(**sizes) is None
        assert attention.mask_unless_causal(**sizes, local_size=8) is None
        beyond = attention.mask_unless_causal(**sizes, local_size=3)
        single = attention.mask_unless_causal(**{**sizes, "q_length": 1}, allow_is_causal_skip=False)
    finally:
        attention.set_prefill_from_empty(False)
    assert beyond is not None and single is not None
    chunk = attention.mask_unless_causal(**sizes)
    assert chunk is not None
    assert [3, 4, 5, 6] == chunk[0, 0].sum(-1).tolist()


@pytest.mark.parametrize(("times", "expected"), [((2e-4, 3e-4), "sdpa_gqa"), ((3e-4, 2e-4), "split_gqa")])
def test_the_fastest_attention_over_the_cells_own_cache_is_taken(
    times: tuple[float, float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda kernel, **_: kernel)
    seen: list[tuple[int, ...]] = []
    for name, kernel in attention_choice.CANDIDATES.items():

        def watched(_: object, query: torch.Tensor, key: torch.Tensor, *rest: torch.Tensor, k: object = kernel) -> None:
            assert callable(k)
            k(None, query, key, *rest, scaling=None)
            seen.append((*query.shape, key.shape[1], int(rest[1].sum())))

        monkeypatch.setitem(attention_choice.CANDIDATES, name, watched)
    cache = caches.StaticCache(config=LlamaConfig(num_hidden_layers=3), max_cache_len=32)
    for layer in cache.layers:
        layer.update(torch.zeros(2, 2, 4, 8), torch.zeros(2, 2, 4, 8))
    given = iter(times)

    def timer(run: Callable[[], None]) -> float:
        run()
        return next(given)

    name, note = attention_choice.fastest_attention(cache, 3, 4, timer)
    assert expected == name
    assert "sdpa_gqa 200 us" in note or "sdpa_gqa 300 us" in note
    assert [(2, 6, 1, 8, 2, 8)] * 2 * len(cache.layers) == seen
    assert note.endswith("; sdpa_gqa is PyTorch's flash_attention")  # what a CPU takes


def test_a_kernel_that_the_device_refuses_is_passed_over_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda kernel, **_: kernel)
    cache = caches.StaticCache(config=LlamaConfig(num_hidden_layers=1), max_cache_len=32)

    def choose(*found: float | RuntimeError) -> tuple[str, str]:
        given = iter(found)

        def timer(run: Callable[[], None]) -> float:
            if isinstance(one := next(given), RuntimeError):
                raise one
            return one

        return attention_choice.fastest_attention(cache, 3, 4, timer)

    name, note = choose(RuntimeError("no plan for this mask\nwith a trace"), 3e-4)
    assert "split_gqa" == name
    assert note.endswith("sdpa_gqa refused (RuntimeError: no plan for this mask), split_gqa 300 us")
    with pytest.raises(RuntimeError, match="first"):
        choose(RuntimeError("first"), RuntimeError("second"))
    with pytest.raises(torch.OutOfMemoryError):
        choose(RuntimeError("CUDA error: out of memory"), 3e-4)


class Attending:
    """As much of a model as choosing a kernel asks for: twelve query heads to three key heads."""

    def __init__(self, name: str) -> None:
        self.config = LlamaConfig(hidden_size=96, num_attention_heads=12, num_key_value_heads=3)
        self.set_attn_implementation(name)

    def set_attn_implementation(self, name: str) -> None:
        self.config._attn_implementation = name


@pytest.mark.parametrize(("name", "expected"), [("sdpa_gqa", "split_gqa"), ("eager", "eager")])
def test_a_model_takes_the_fastest_for_a_token_with_its_drafts(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def found(cache: object, queries: int, filled: int, timer: object) -> tuple[str, str]:
        asked.append((queries, filled))
        return "split_gqa", "timed"

    monkeypatch.setattr(attention_choice, "fastest_attention", found)
    model = Attending(name)
    notes = attention_choice.take_fastest(model, None, 6, 100)
    assert expected == model.config._attn_implementation
    assert ([(4 * 6, 100)], ("timed",)) == (asked, notes) if expected == "split_gqa" else ([], ()) == (asked, notes)


class ScriptedEvent:
    """A device event on a clock of milliseconds that the test sets; `elapsed_time` is a 32-bit float as in CUDA."""

    now_ms = 0.0
    made = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        ScriptedEvent.made += 1
        self.at_ms = 0.0

    def record(self) -> None:
        self.at_ms = ScriptedEvent.now_ms

    def elapsed_time(self, other: ScriptedEvent) -> float:
        return float(torch.tensor(other.at_ms - self.at_ms, dtype=torch.float32))


@pytest.fixture
def scripted_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ScriptedEvent]]:
    monkeypatch.setattr(torch.cuda, "Event", ScriptedEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(clocks.time, "monotonic_ns", lambda: 10**12 + round(ScriptedEvent.now_ms * 1e6) + 4000)
    ScriptedEvent.now_ms, ScriptedEvent.made = 100.0, 0
    yield ScriptedEvent


def test_device_events_are_mapped_onto_the_host_clock(scripted_device: type[ScriptedEvent]) -> None:
    clock = clocks.EventClock(torch.device("cpu"))
    clock.reserve(2)
    clock.begin()
    for at_ms in (103.0, 107.5):
        scripted_device.now_ms = at_ms
        clock.mark()
    scripted_device.now_ms = 107.51
    assert [10**12 + 103_004_000, 10**12 + 107_504_000] == clock.finish()
    assert clock.error_s == pytest.approx(10e-6)


def test_a_window_on_a_device_has_anchors_and_tells_when_all_was_launched(
    scripted_device: type[ScriptedEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = clocks.EventClock(torch.device("cpu"))
    clock.reserve(1)
    readings = iter(range(0, 60, 10))
    monkeypatch.setattr(clocks.time, "monotonic_ns", lambda: next(readings))
    clock.begin()
    clock.mark()
    clock.finish()
    assert 20 == clock.launched_at_ns
    opening, closing = clock.anchors()
    assert (0, 10, 30, 40) == (*opening[:2], *closing[:2])
    assert (True, "close") == (opening.label.startswith("open"), closing.label)
    assert ([], None) == (clocks.HostClock().anchors(), clocks.HostClock().launched_at_ns)


def test_a_long_window_keeps_its_steps_exact(scripted_device: type[ScriptedEvent]) -> None:
    clock = clocks.EventClock(torch.device("cpu"))
    clock.reserve(40_000)
    clock.begin()
    for step in range(1, 40_001):
        scripted_device.now_ms = 100.0 + step * 3.0007
        clock.mark()
    stamps = clock.finish()
    steps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    assert max(abs(step - 3_000_700) for step in steps) < 600  # a float of 120 s would be off by 8 µs
    assert clock.error_s == pytest.approx(4e-6, abs=10e-6)


def test_no_event_is_made_inside_a_window_and_all_are_used_again(scripted_device: type[ScriptedEvent]) -> None:
    clock = clocks.EventClock(torch.device("cpu"))
    clock.reserve(3)
    made = scripted_device.made
    clock.begin()
    for _ in range(3):
        clock.mark()
    clock.finish()
    clock.begin()
    clock.mark()
    assert len(clock.finish()) == 1
    assert made == scripted_device.made == 5  # a mark each, and the two anchors


def test_a_device_without_events_gives_one_stamp_for_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "synchronize", lambda: None)
    clock = clocks.open_clock(torch.device("mps"))
    clock.begin()
    for _ in range(8):
        clock.mark()
    assert len(clock.finish()) == 1


class _Capture:
    """`torch.cuda.graph` that ends as a real one does when the device refuses: with an error of its own on leaving."""

    def __init__(self, leaving: str | None) -> None:
        self._leaving = leaving

    def __call__(self, graph: object) -> _Capture:
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        if self._leaving is not None:
            raise RuntimeError(self._leaving)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Streams that were set; the current one is called `before`."""
    made: list[object] = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "before")
    monkeypatch.setattr(torch.cuda, "set_stream", made.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    return made


class _Graph:
    """A graph of two kernels and a copy, as the driver prints it."""

    def enable_debug_mode(self) -> None:
        self.is_kept = True

    def debug_dump(self, path: str) -> None:
        assert self.is_kept
        nodes = ("KERNEL", "MEMCPY", "KERNEL")
        lines = [f'"graph_1_node_{number}" [label="{{{kind}\\n| a}}"];' for number, kind in enumerate(nodes)]
        Path(path).write_text("\n".join(lines))


def _fails(error: BaseException | None) -> None:
    if error is not None:
        raise error


def test_a_step_that_can_be_captured_is(streams: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "graph", _Capture(None))
    found = graphs.capture(lambda: None)
    assert isinstance(found.graph, _Graph)
    assert (None, 2) == (found.note, found.kernels)
    assert streams == []


def test_a_refused_capture_becomes_a_note(streams: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cuda, "graph", _Capture("CUDA error: operation failed due to a previous error during capture")
    )
    refused = RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with …")
    found = graphs.capture(lambda: _fails(refused))
    assert found.graph is None
    assert found.note == "no device graph: RuntimeError: CUDA error: operation not permitted when stream is capturing"
    assert streams == ["before"]


@pytest.mark.parametrize(
    ("error", "leaving"),
    [
        (ZeroDivisionError("a bug of ours"), None),
        (RuntimeError("shapes do not match"), None),
        (torch.OutOfMemoryError("CUDA out of memory"), "operation failed due to a previous error during capture"),
    ],
)
def test_any_other_fault_in_a_capture_is_raised(
    error: Exception, leaving: str | None, streams: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph", _Capture(leaving))
    expected = torch.OutOfMemoryError if isinstance(error, torch.OutOfMemoryError) else type(error)
    with pytest.raises(expected), graphs.out_of_memory_named():
        graphs.capture(lambda: _fails(error))


def test_exhausted_memory_has_one_type_however_it_is_wrapped() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="MPS backend"), graphs.out_of_memory_named():
        raise RuntimeError("MPS backend out of memory")
    with pytest.raises(torch.OutOfMemoryError, match="120 GiB"), graphs.out_of_memory_named():
        try:
            raise torch.OutOfMemoryError("Tried to allocate 120 GiB")
        except torch.OutOfMemoryError as inner:
            raise RuntimeError("backend='inductor' raised") from inner
    with pytest.raises(ValueError, match="no memory matter"), graphs.out_of_memory_named():
        raise ValueError("no memory matter")
    with pytest.raises(RuntimeError, match="shapes") as raised, graphs.out_of_memory_named():
        raise RuntimeError("shapes do not match")
    assert type(raised.value) is RuntimeError
