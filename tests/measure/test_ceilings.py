"""Ceilings on small buffers of the CPU and on a scripted clock: which rates are had, from how many passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tokbench.measure import ceilings, host  # noqa: E402
from tokbench.record.facts import CeilingFacts, CeilingRate  # noqa: E402

SIZE = 1 << 20
Timed = Callable[[Callable[[], Any]], float]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "CPU_BUFFER_BYTES", SIZE)
    monkeypatch.setattr(ceilings, "MIN_CPU_BUFFER_BYTES", SIZE)
    monkeypatch.setattr(ceilings, "FIRST_SIDE", 16)
    monkeypatch.setattr(ceilings, "CPU_SIDE", 32)


class ScriptedClock:
    """Stands for `time`; work moves it, nothing else does."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ScriptedClock:
    clock = ScriptedClock()
    monkeypatch.setattr(ceilings, "time", clock)
    return clock


def lasting(seconds: Callable[[Callable[[], Any]], float], clock: ScriptedClock) -> Callable[..., Timed]:
    """A timer under which each piece of work is really done, and lasts as long as told."""

    def timed(work: Callable[[], Any]) -> float:
        work()
        clock.now_s += seconds(work)
        return seconds(work)

    return lambda *_: timed


def rates_of(facts: CeilingFacts, kind: str) -> dict[str, CeilingRate]:
    return {rate.dtype: rate for rate in facts.rates if rate.kind == kind}


def test_every_way_to_read_and_every_type_is_tried() -> None:
    facts = ceilings.measure_ceilings("cpu", "bfloat16", 60.0)
    assert [(rate.kind, rate.dtype) for rate in facts.rates] == [
        ("read_sum", "float32"),
        ("read_mv", "float32"),
        ("copy", "float32"),
        ("matmul", "bfloat16"),
        ("matmul", "float32"),
        ("matmul", "float16"),
    ]
    assert {rate.passes for rate in facts.rates} == {ceilings.MAX_PASSES} == {facts.repetitions}
    assert all(rate.per_s >= rate.median_per_s > 0 for rate in facts.rates)
    assert facts.read_bytes_per_s == max(rate.per_s for rate in facts.rates if rate.kind.startswith("read_"))
    assert facts.matmul_flops_per_s == rates_of(facts, "matmul")["bfloat16"].per_s
    assert (facts.dtype, facts.buffer_bytes, facts.left_out) == ("bfloat16", SIZE, ())


@pytest.mark.parametrize(
    ("fast", "kind", "bytes_moved"), [("sum", "read_sum", SIZE), ("copy", "copy", 2 * SIZE), ("mv", "read_mv", SIZE)]
)
def test_the_read_ceiling_is_the_best_way_to_move_bytes(
    monkeypatch: pytest.MonkeyPatch, clock: ScriptedClock, fast: str, kind: str, bytes_moved: int
) -> None:
    """A copy moves each byte twice, and is no reading on a CPU; MKL's product reads a third less than a sum on some."""

    def seconds(work: Callable[[], Any]) -> float:
        names = (work.__name__, *work.__code__.co_names) if hasattr(work, "__code__") else (work.__name__,)
        return 0.001 if any(name.startswith(fast) for name in names) else 0.01

    monkeypatch.setattr(ceilings, "_timer", lasting(seconds, clock))
    facts = ceilings.measure_ceilings("cpu", "float32", 60.0)
    found = rates_of(facts, kind)["float32"].per_s
    assert found == pytest.approx(bytes_moved / 0.001)
    reads = [rate for rate in facts.rates if rate.kind != "matmul"]
    assert ceilings.best_reading(reads, is_cpu=False) == found
    assert facts.read_bytes_per_s == pytest.approx(SIZE / 0.01 if fast == "copy" else found)
    said = {"sum": "sum", "mv": "matrix-vector product", "copy": "sum"}[fast]  # the way that the ceiling comes from
    assert f", best: {said};" in facts.method
    assert rates_of(facts, "matmul")["float32"].per_s == pytest.approx(2 * 32**3 / 0.01)


def test_the_fastest_and_the_median_pass_are_kept(clock: ScriptedClock) -> None:
    lengths = iter([9.0, 9.0, 9.0, 5.0, 1.0, 4.0, 2.0, 3.0])

    def timed(work: Callable[[], Any]) -> float:
        seconds = next(lengths)
        clock.now_s += seconds
        return seconds

    found = ceilings._time_passes(timed, lambda: None, ceilings._Share(clock.now_s + 28, clock.now_s + 50))
    assert found == (1.0, 3.0, 5)


@pytest.mark.parametrize(
    ("share_s", "total_s", "passes"),
    [(10.0, 10.0, 6), (4.0, 100.0, 5), (1000.0, 1000.0, 50), (4.0, 6.0, 2), (0.0, 0.0, 1), (-1.0, -1.0, 1)],
)
def test_passes_within_the_time(clock: ScriptedClock, share_s: float, total_s: float, passes: int) -> None:
    """Of one second each, behind up to three warm ones: five where all the time allows, more within the share."""
    timed = lasting(lambda _: 1.0, clock)()
    begun = clock.now_s
    found = ceilings._time_passes(timed, lambda: None, ceilings._Share(begun + share_s - 0.5, begun + total_s - 0.5))
    assert found.passes == passes
    assert clock.now_s <= begun + max(total_s, 1.0)


def test_without_time_there_is_one_pass_each(monkeypatch: pytest.MonkeyPatch, clock: ScriptedClock) -> None:
    monkeypatch.setattr(ceilings, "_timer", lasting(lambda _: 1.0, clock))
    facts = ceilings.measure_ceilings("cpu", "float32", 0.0)
    assert [(rate.kind, rate.dtype, rate.passes) for rate in facts.rates] == [
        ("read_sum", "float32", 1),
        ("read_mv", "float32", 1),
        ("copy", "float32", 1),
    ]
    assert (facts.repetitions, facts.matmul_flops_per_s) == (1, None)
    assert facts.left_out == tuple(
        f"matmul {dtype}: too slow for 5 passes of 16 x 16 in the time left"
        for dtype in ("float32", "bfloat16", "float16")
    )


def test_a_slow_type_is_multiplied_in_smaller_matrices(monkeypatch: pytest.MonkeyPatch, clock: ScriptedClock) -> None:
    """At 1 GFLOP/s, in one second: (2 + 5) products of twice the side must fit if each takes four times as long."""
    monkeypatch.setattr(ceilings, "FIRST_SIDE", 64)
    monkeypatch.setattr(ceilings, "CPU_SIDE", 2048)
    sides: list[int] = []

    def product(bench: object, dtype: object, side: int) -> Callable[[], None]:
        sides.append(side)
        return lambda: None

    monkeypatch.setattr(ceilings, "_product", product)
    bench = ceilings._Bench(torch, torch.device("cpu"), lasting(lambda _: 2 * sides[-1] ** 3 * 1e-9, clock)())
    side, found = ceilings._time_product(bench, torch.float16, ceilings._Share(clock.now_s + 1, clock.now_s + 1))
    assert sides == [64, 128, 256]
    assert side == 256
    assert found.fastest_s == pytest.approx(2 * 256**3 * 1e-9)
    assert found.passes >= ceilings.MIN_PASSES


def free_bytes(monkeypatch: pytest.MonkeyPatch, *answers: int) -> None:
    """What the host says is free, reading by reading; the last answer stays."""
    left: Iterator[int] = iter(answers)

    def read(root: Path) -> int:
        return next(left, answers[-1])

    monkeypatch.setattr(host, "free_memory_bytes", read)


def test_a_copy_needs_room_for_two_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    free_bytes(monkeypatch, 2 * SIZE, 2 * SIZE - 1)
    facts = ceilings.measure_ceilings("cpu", "float32", 60.0)
    assert [rate.kind for rate in facts.rates if rate.kind != "matmul"] == ["read_sum", "read_mv"]
    assert facts.left_out == ("copy: no second buffer of 0.00 GB fits",)


def test_the_buffer_is_halved_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "MIN_CPU_BUFFER_BYTES", SIZE // 4)
    free_bytes(monkeypatch, SIZE)
    assert ceilings.measure_ceilings("cpu", "float32", 60.0).buffer_bytes == SIZE // 2
    free_bytes(monkeypatch, SIZE // 4)
    with pytest.raises(MemoryError, match="more than half of the free memory"):
        ceilings.measure_ceilings("cpu", "float32", 60.0)


@pytest.mark.parametrize(("refused", "matmul"), [("float16", True), ("float32", False)])
def test_a_type_that_the_device_does_not_multiply_is_absent(
    monkeypatch: pytest.MonkeyPatch, refused: str, matmul: bool
) -> None:
    made = ceilings._product

    def product(bench: Any, dtype: Any, side: int) -> Callable[[], Any]:
        if dtype is getattr(torch, refused):
            raise RuntimeError('"addmm" not implemented for it\nwith a second line')
        return made(bench, dtype, side)

    monkeypatch.setattr(ceilings, "_product", product)
    facts = ceilings.measure_ceilings("cpu", "float32", 60.0)
    assert refused not in rates_of(facts, "matmul")
    assert facts.left_out == (f'matmul {refused}: "addmm" not implemented for it',)
    assert (facts.matmul_flops_per_s is not None) is matmul
    assert facts.read_bytes_per_s is not None


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("float32", "cuda", "float32"),
        ("float16", "cpu", "float16"),
        ("bfloat16", "cpu", "bfloat16"),
        ("mxfp4", "cuda", "bfloat16"),
        ("int4", "cuda", "bfloat16"),
        ("int8", "cpu", "float32"),
        ("fp8", "cpu", "float32"),
    ],
)
def test_weights_of_few_bits_are_multiplied_unpacked(dtype: str, device: str, expected: str) -> None:
    assert ceilings.product_dtype(dtype, device) == expected


def test_the_ceiling_of_quantised_weights_is_that_of_their_products() -> None:
    facts = ceilings.measure_ceilings("cpu", "int8", 60.0)
    assert facts.dtype == "int8"
    assert facts.matmul_flops_per_s == rates_of(facts, "matmul")["float32"].per_s


def test_the_gpu_that_was_asked_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    rate = CeilingRate(kind="read_sum", dtype="bfloat16", per_s=1.0, median_per_s=1.0, passes=5, buffer_bytes=8)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(ceilings, "_timer", lambda *_: lambda _: 1.0)
    monkeypatch.setattr(ceilings, "_read_rates", lambda *_: iter([rate]))
    monkeypatch.setattr(ceilings, "_product_rates", lambda *_: iter([]))
    facts = ceilings.measure_ceilings("cuda:1", "bfloat16", 1.0)
    assert [torch.device("cuda:1")] == chosen
    assert "timed by device events" in facts.method


def test_a_record_of_before_the_rates_is_read() -> None:
    text = (
        '{"read_bytes_per_s":2e12,"matmul_flops_per_s":5e14,"dtype":"bfloat16","buffer_bytes":1073741824,'
        '"repetitions":9,"method":"sum of a buffer"}'
    )
    facts = CeilingFacts.model_validate_json(text)
    assert (facts.rates, facts.left_out) == ((), ())
    assert CeilingFacts.model_validate_json(facts.model_dump_json()) == facts
