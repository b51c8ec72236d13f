"""Every metric: one case by hand on scripted stamps, and one where it is undefined."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from builders import Script
from scripted_facts import CPU, GPU, LLAMA_8B_CONFIG, LLAMA_8B_PARAMETERS, ceilings
from tokbench.arithmetic import bytes_read_per_step, expected_distinct_experts, flops_per_token
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.derive.metrics import catalog
from tokbench.derive.validity import Code
from tokbench.record.catalog import shape_from_config
from tokbench.record.facts import CeilingRate, DeviceFacts
from tokbench.record.observations import FactsRead, MemoryReading
from tokbench.stats import Estimate


def only_cell(script: Script, folder: Path) -> CellResult:
    (cell,) = evaluate(script.run(folder), "run").cells
    return cell


def value_of(cell: CellResult, name: str) -> float:
    value = cell.metrics[name]
    assert isinstance(value, Estimate), value
    return value.value


def reason_of(cell: CellResult, name: str) -> str:
    value = cell.metrics[name]
    assert isinstance(value, Missing), value
    return value.reason


@pytest.fixture
def batch(tmp_path: Path) -> CellResult:
    """Two rows, 100 prompt tokens in 0.5 s, then 4 steps of 10, 10, 10 and 20 ms."""
    script = Script(ceiling=ceilings())
    cell_id = script.cell(static_batch=2)
    script.prepare(cell_id, cache_rows=128, kv_bytes=128 * 2 * 131072)
    for _ in range(3):
        script.trial(cell_id, step_s=(0.01, 0.01, 0.01, 0.02), prefill_s=0.5)
    return only_cell(script, tmp_path)


@pytest.fixture
def requests(tmp_path: Path) -> CellResult:
    """Two requests: sent at once and 0.5 s late; chunks of 1, 2, 2 and 1, 4 tokens."""
    script = Script()
    cell_id = script.cell(concurrency=2, output_tokens=5)
    script.requests(cell_id, [(0.0, (0.2, 0.4, 0.6), (1, 2, 2)), (0.5, (0.1, 0.6), (1, 4))])
    return only_cell(script, tmp_path)


@pytest.fixture
def bare(tmp_path: Path) -> CellResult:
    """A static batch of which only the stamps are known."""
    script = Script(device=None)
    script.trial(script.cell(config=None, parameters=None), peak_bytes=None)
    return only_cell(script, tmp_path)


@pytest.fixture
def failed(tmp_path: Path) -> CellResult:
    script = Script()
    script.fail(script.cell(), "oom", "out of memory")
    return only_cell(script, tmp_path)


LLAMA_READ_BYTES = 2 * (LLAMA_8B_PARAMETERS - 128256 * 4096)
"""bf16, without the untied input embedding."""
KV_BYTES_PER_TOKEN = 2 * 32 * 8 * 128 * 2
MOE_CONFIG: dict[str, object] = {
    "model_type": "mixtral",
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("decode_tokens_per_s", 4 / 0.05),
        ("output_tokens_per_s", 2 * 5 / 0.55),
        ("e2e_tokens_per_s", 5 / 0.55),
        ("ttft_s", 0.5),
        ("prefill_tokens_per_s", 2 * 100 / 0.5),
        ("tpot_s", 0.0125),
        ("itl_p50_s", 0.01),
        ("itl_p99_s", 0.01 + 0.01 * 0.97),
        ("e2e_latency_s", 0.55),
        ("peak_memory_bytes", 17e9),
        ("weight_bytes", 2 * LLAMA_8B_PARAMETERS),
        ("kv_bytes_per_token", 131072),
        ("read_bytes_per_s", 2e12),
        ("matmul_flops_per_s", 5e14),
    ],
)
def test_static_batch_by_hand(batch: CellResult, name: str, expected: float) -> None:
    assert value_of(batch, name) == pytest.approx(expected, rel=1e-9)


def test_roofline_by_hand(batch: CellResult) -> None:
    roofline = value_of(batch, "roofline_decode_tokens_per_s")
    # Some context length within the decode window: 100 to 105 tokens in each of two rows.
    least, most = (LLAMA_READ_BYTES + 2 * context * KV_BYTES_PER_TOKEN for context in (100, 105))
    assert 2e12 / most <= roofline <= 2e12 / least
    assert value_of(batch, "bandwidth_used_ratio") == pytest.approx(80 / roofline, rel=1e-9)


LLAMA_FLOPS = LLAMA_READ_BYTES
"""Two per parameter that is read: as many as its bytes in bf16."""
ATTENTION_FLOPS = 4 * 32 * 32 * 128
"""Per token of context."""
HEAD_FLOPS = 2 * 128256 * 4096


def test_bytes_per_step_by_hand(batch: CellResult) -> None:
    # Two rows at a mean real length of 100 + 5 // 2 tokens; the static cache holds 128.
    real, allocated = (LLAMA_READ_BYTES + 2 * context * KV_BYTES_PER_TOKEN for context in (102, 128))
    assert (value_of(batch, "bytes_read_per_step"), value_of(batch, "bytes_read_per_step_allocated")) == (
        real,
        allocated,
    )
    assert value_of(batch, "bandwidth_used_ratio") == pytest.approx(80 * real / 2e12, rel=1e-9)


def test_no_padding_is_read_of_a_cache_that_grows(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings())
    cell_id = script.cell()
    script.prepare(cell_id, cache_rows=100)
    script.trial(cell_id)
    cell = only_cell(script, tmp_path)
    assert "no padding of a cache is read" in reason_of(cell, "bytes_read_per_step_allocated")
    assert value_of(cell, "bytes_read_per_step") == LLAMA_READ_BYTES + 102 * KV_BYTES_PER_TOKEN


def test_bytes_as_loaded_go_before_the_closed_form(tmp_path: Path) -> None:
    """Mixtral of 8 experts, 2 a token: 4 rows are expected to read 8 * (1 - 0.75^4) of them in each layer."""
    script = Script(ceiling=ceilings())
    script.trial(script.cell(model="somewhere/moe", config=MOE_CONFIG, static_batch=4))
    loaded = {"weight_bytes": 10_000_000, "lookup_bytes": 500_000, "expert_bytes": 8_000_000}
    script.events = [
        event.model_copy(update={"model": event.model.model_copy(update=loaded)})
        if event.event == "facts_read" and event.model is not None
        else event
        for event in script.events
    ]
    kv = 4 * 102 * 2 * 2 * 2 * 64 * 2
    expected = 10_000_000 - 500_000 - 0.75**4 * 8_000_000 + kv
    assert value_of(only_cell(script, tmp_path), "bytes_read_per_step") == pytest.approx(expected, rel=1e-9)


def test_flops_used_by_hand(batch: CellResult) -> None:
    # Two rows at 80 tokens/s each, against 500 TFLOP/s measured and 989.4 in the datasheet of the H100 SXM.
    flops = 2 * 80 * (LLAMA_FLOPS + 102 * ATTENTION_FLOPS)
    assert value_of(batch, "flops_used_ratio") == pytest.approx(flops / 5e14, rel=1e-9)
    assert value_of(batch, "nominal_flops_used_ratio") == pytest.approx(flops / 989.4e12, rel=1e-9)


def test_prefill_flops_used_by_hand(batch: CellResult) -> None:
    # 100 tokens of each of two rows in 0.5 s; token i attends to i tokens; one row's head is computed once.
    row = 100 * (LLAMA_FLOPS - HEAD_FLOPS) + HEAD_FLOPS + ATTENTION_FLOPS * (100 * 101 // 2)
    assert value_of(batch, "prefill_flops_used_ratio") == pytest.approx(2 * row / 0.5 / 5e14, rel=1e-9)
    assert value_of(batch, "nominal_prefill_flops_used_ratio") == pytest.approx(2 * row / 0.5 / 989.4e12, rel=1e-9)


def test_prefill_of_a_window_layer_attends_to_its_window(tmp_path: Path) -> None:
    config = {**LLAMA_8B_CONFIG, "model_type": "mistral", "sliding_window": 40}
    script = Script(ceiling=ceilings())
    script.trial(script.cell(config=config), prefill_s=0.5)
    shape = shape_from_config(config, "windowed")
    flops = sum(flops_per_token(shape, context) for context in range(1, 101)) - 99 * HEAD_FLOPS
    found = value_of(only_cell(script, tmp_path), "prefill_flops_used_ratio")
    assert found == pytest.approx(flops / 0.5 / 5e14, rel=1e-9)


def test_a_datasheet_without_the_type_gives_no_share(tmp_path: Path) -> None:
    device = DeviceFacts(kind="cuda", name="Groq LPU v1")
    script = Script(device=device, ceiling=ceilings())
    script.trial(script.cell())
    cell = only_cell(script, tmp_path)
    assert reason_of(cell, "nominal_flops_used_ratio").startswith("no dense bf16 rate for")
    script = Script(device=CPU, ceiling=ceilings())
    script.trial(script.cell())
    cell = only_cell(script, tmp_path / "cpu")
    for name in ("nominal_bandwidth_used_ratio", "nominal_prefill_flops_used_ratio"):
        assert reason_of(cell, name) == "devices.yaml has no datasheet of Scripted CPU"


def test_the_ceiling_of_another_type_holds_no_cell(tmp_path: Path) -> None:
    """Ceilings of float32 cells: reading has no type, products have; one in the cell's own type may stand beside."""
    facts = ceilings(matmul_flops_per_s=1e12).model_copy(update={"dtype": "float32"})
    rate = CeilingRate(
        kind="matmul", dtype="bfloat16", per_s=4e14, median_per_s=3e14, passes=5, buffer_bytes=402_653_184
    )
    alone, beside = Script(ceiling=facts), Script(ceiling=facts.model_copy(update={"rates": (rate,)}))
    for script in (alone, beside):
        script.trial(script.cell())
    cell = only_cell(alone, tmp_path / "alone")
    assert value_of(cell, "read_bytes_per_s") == 2e12
    assert reason_of(cell, "flops_used_ratio") == "no matrix-multiply ceiling of bfloat16 was measured in this run"
    assert value_of(only_cell(beside, tmp_path / "beside"), "matmul_flops_per_s") == 4e14


def test_the_best_read_rate_of_a_run_is_its_ceiling(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=1e12))
    script.add(FactsRead(at_ns=5, ceilings=ceilings(read_bytes_per_s=3e12).model_copy(update={"dtype": "float32"})))
    script.trial(script.cell())
    assert value_of(only_cell(script, tmp_path), "read_bytes_per_s") == 3e12


def routed_cell(folder: Path, static_batch: int) -> CellResult:
    """A model with routed experts at 100 tokens/s."""
    script = Script(ceiling=ceilings(read_bytes_per_s=1e9))
    cell_id = script.cell(model="somewhere/moe", config=MOE_CONFIG, static_batch=static_batch)
    for _ in range(3):
        script.trial(cell_id, step_s=0.01)
    return only_cell(script, folder)


def test_the_roofline_has_a_compute_wall(tmp_path: Path) -> None:
    shape = shape_from_config(LLAMA_8B_CONFIG, "llama")
    script = Script(ceiling=ceilings(matmul_flops_per_s=1e12))
    script.trial(script.cell(static_batch=64))
    cell = only_cell(script, tmp_path)
    # 64 rows at 100 + 5 // 2 tokens, at 1 TFLOP/s: computing takes about 1 s, reading about 8 ms.
    expected = 1e12 / (64 * flops_per_token(shape, 102))
    assert value_of(cell, "roofline_decode_tokens_per_s") == pytest.approx(expected, rel=1e-9)
    assert value_of(cell, "bandwidth_used_ratio") == pytest.approx(
        100 * bytes_read_per_step(shape, "bfloat16", 64, 102).total / 2e12, rel=1e-9
    )


def test_what_may_lie_in_a_cache_has_no_share_of_the_memorys_rate(tmp_path: Path) -> None:
    found = []
    for name, cache in (("small", 3 << 30), ("large", 4 << 30)):  # a step reads 15.0 GB: 4.7 and 3.5 times as much
        script = Script(device=GPU.model_copy(update={"cache_bytes": cache}), ceiling=ceilings())
        script.trial(script.cell())
        found.append(only_cell(script, tmp_path / name))
    assert value_of(found[0], "bandwidth_used_ratio") == pytest.approx(
        100 * value_of(found[0], "bytes_read_per_step") / 2e12
    )
    for name in ("bandwidth_used_ratio", "nominal_bandwidth_used_ratio"):
        assert "less than 4 times the 4295 MB of the device's last cache" in reason_of(found[1], name)
    assert isinstance(found[1].metrics["decode_tokens_per_s"], Estimate)


def test_without_a_compute_ceiling_memory_alone_counts(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(matmul_flops_per_s=None))
    script.trial(script.cell(static_batch=64))
    read = bytes_read_per_step(shape_from_config(LLAMA_8B_CONFIG, "llama"), "bfloat16", 64, 102).total
    assert value_of(only_cell(script, tmp_path), "roofline_decode_tokens_per_s") == pytest.approx(2e12 / read)


def test_uniform_routing_is_counted_and_said_to_be(tmp_path: Path) -> None:
    shape = shape_from_config(MOE_CONFIG, "moe")
    cell = routed_cell(tmp_path, 4)
    distinct = expected_distinct_experts(8, 2, 4)
    read = bytes_read_per_step(shape, "bfloat16", 4, 102, distinct_experts=distinct).total
    assert value_of(cell, "roofline_decode_tokens_per_s") == pytest.approx(1e9 / read, rel=1e-9)
    for name in ("roofline_decode_tokens_per_s", "bandwidth_used_ratio"):
        assert "expected distinct experts under uniform routing" in catalog()[name].formula


def test_above_the_ceiling_a_routed_model_is_suspect_and_not_invalid(tmp_path: Path) -> None:
    cell = routed_cell(tmp_path, 4)
    assert value_of(cell, "bandwidth_used_ratio") > 1
    assert (cell.validity.verdict, Code.ABOVE_UNIFORM_ROUTING in cell.validity.reasons) == ("suspect", True)


def test_system_speed_of_a_batch_is_that_of_the_same_requests(tmp_path: Path) -> None:
    """One definition: all output tokens over the time from asking to the last of them."""
    batch, served = Script(), Script()
    batch.trial(batch.cell(static_batch=2), step_s=0.1, prefill_s=0.2)
    served.requests(served.cell(concurrency=2), [(0.0, (0.2, 0.3, 0.4, 0.5, 0.6), (1,) * 5)] * 2)
    values = [value_of(only_cell(s, tmp_path / n), "output_tokens_per_s") for s, n in ((batch, "a"), (served, "b"))]
    assert values == pytest.approx([10 / 0.6, 10 / 0.6], rel=1e-9)


REQUEST_METRICS = (
    "ttft_s",
    "ttft_from_send_s",
    "decode_tokens_per_s",
    "tpot_s",
    "output_tokens_per_s",
    "e2e_latency_s",
    "e2e_tokens_per_s",
)


def with_errors(script: Script, *request_ids: str) -> Script:
    script.events = [
        event.model_copy(update={"error": "connection lost"})
        if event.event == "request_trace" and event.request_id in request_ids
        else event
        for event in script.events
    ]
    return script


def test_requests_that_ended_in_an_error_count_nowhere(tmp_path: Path) -> None:
    good = (0.0, (0.2, 0.4, 0.6), (1, 2, 2))
    alone, mixed = Script(), Script()
    alone.requests(alone.cell(concurrency=2), [good])
    mixed.requests(mixed.cell(concurrency=2), [good, (0.5, (0.1, 5.0), (1, 40))])
    expected, found = only_cell(alone, tmp_path / "a"), only_cell(with_errors(mixed, "r1"), tmp_path / "b")
    for name in REQUEST_METRICS:
        assert value_of(found, name) == value_of(expected, name)


def test_only_requests_with_errors_leave_undefined(tmp_path: Path) -> None:
    script = Script()
    script.requests(script.cell(concurrency=2), [(0.0, (0.2, 0.4), (1, 2))])
    cell = only_cell(with_errors(script, "r0"), tmp_path)
    assert {reason_of(cell, name) for name in REQUEST_METRICS} == {"every request ended in an error"}


def test_requests_of_one_chunk_give_no_decode_speed(tmp_path: Path) -> None:
    script = Script()
    script.requests(script.cell(concurrency=2), [(0.0, (0.2,), (5,))])
    cell = only_cell(script, tmp_path)
    assert reason_of(cell, "decode_tokens_per_s") == "fewer than two stamps in decode"
    assert value_of(cell, "output_tokens_per_s") == pytest.approx(25.0)


def test_nominal_share_uses_the_datasheet(batch: CellResult) -> None:
    # H100 SXM: 3350 GB/s in devices.yaml, against 2000 measured.
    expected = value_of(batch, "bandwidth_used_ratio") * 2000 / 3350
    assert value_of(batch, "nominal_bandwidth_used_ratio") == pytest.approx(expected, rel=1e-9)


def test_one_long_step_lowers_the_mean_share_and_not_the_medians(batch: CellResult) -> None:
    # Steps of 10, 10, 10 and 20 ms: 80 tokens/s on the mean, 100 by the median.
    assert value_of(batch, "bandwidth_used_p50_ratio") == pytest.approx(
        value_of(batch, "bytes_read_per_step") * 100 / 2e12
    )
    assert value_of(batch, "bandwidth_used_ratio") == pytest.approx(value_of(batch, "bytes_read_per_step") * 80 / 2e12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ttft_s", (0.2 + 0.6) / 2),
        ("ttft_from_send_s", (0.2 + 0.1) / 2),
        ("decode_tokens_per_s", (4 / 0.4 + 4 / 0.5) / 2),
        ("tpot_s", 1 / 9),
        ("output_tokens_per_s", 10 / 1.1),
        ("e2e_latency_s", (0.6 + 1.1) / 2),
        ("e2e_tokens_per_s", (5 / 0.6 + 5 / 1.1) / 2),
    ],
)
def test_requests_by_hand(requests: CellResult, name: str, expected: float) -> None:
    """Chunks hold several tokens: the first chunk's tokens are left out of decode, not one token."""
    assert value_of(requests, name) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "name",
    ["itl_p50_s", "itl_p99_s", "step_jitter_ratio", "prefill_tokens_per_s", "roofline_decode_tokens_per_s"],
)
def test_requests_leave_undefined(requests: CellResult, name: str) -> None:
    assert reason_of(requests, name)


@pytest.mark.parametrize(
    "name",
    [
        "ttft_from_send_s",
        "peak_memory_bytes",
        "steady_memory_bytes",
        "weight_bytes",
        "kv_bytes_per_token",
        "read_bytes_per_s",
        "matmul_flops_per_s",
        "roofline_decode_tokens_per_s",
        "bandwidth_used_ratio",
        "bandwidth_used_p50_ratio",
        "nominal_bandwidth_used_ratio",
        "flops_used_ratio",
        "nominal_flops_used_ratio",
        "prefill_flops_used_ratio",
        "nominal_prefill_flops_used_ratio",
        "bytes_read_per_step",
        "bytes_read_per_step_allocated",
    ],
)
def test_undefined_without_its_observation(bare: CellResult, name: str) -> None:
    assert reason_of(bare, name)


@pytest.mark.parametrize(
    "name",
    [
        "decode_tokens_per_s",
        "output_tokens_per_s",
        "e2e_tokens_per_s",
        "ttft_s",
        "prefill_tokens_per_s",
        "tpot_s",
        "itl_p50_s",
        "itl_p99_s",
        "e2e_latency_s",
    ],
)
def test_undefined_without_a_finished_trial(failed: CellResult, name: str) -> None:
    assert failed.status == "oom"
    assert reason_of(failed, name) == "out of memory"


def test_gaps_need_a_stamp_per_token(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell(), step_s=0.02, tokens_per_stamp=2)
    cell = only_cell(script, tmp_path)
    assert reason_of(cell, "itl_p99_s") == "the engine does not stamp every token"
    assert value_of(cell, "decode_tokens_per_s") == pytest.approx(100.0)


def test_interval_is_over_repetitions(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for step_s in (0.01, 0.02, 0.04):
        script.trial(cell_id, step_s=step_s)
    value = only_cell(script, tmp_path).metrics["decode_tokens_per_s"]
    assert isinstance(value, Estimate)
    assert (value.n, value.statistic) == (3, "geometric_mean")
    assert value.value == pytest.approx(50.0)
    assert value.low is not None and value.high is not None
    assert value.low * value.high == pytest.approx(2500.0)


def test_jitter_needs_a_hundred_steps_and_pools_repetitions(tmp_path: Path) -> None:
    script = Script()
    few, many, each = (script.cell(output_tokens=tokens) for tokens in (41, 81, 201))
    script.trial(few, step_s=[0.01] * 40)
    for _ in range(2):
        script.trial(many, step_s=[0.01] * 75 + [0.02] * 5)
        script.trial(each, step_s=[0.01] * 190 + [0.03] * 10)
    results = evaluate(script.run(tmp_path), "a run")
    found = {cell.cell_id: cell.metrics["step_jitter_ratio"] for cell in results.cells}
    assert "40 decode steps were stamped" in getattr(found[few], "reason", "")
    assert (1, pytest.approx(2.0)) == (getattr(found[many], "n", 0), getattr(found[many], "value", 0))
    assert (2, pytest.approx(3.0)) == (getattr(found[each], "n", 0), getattr(found[each], "value", 0))


def test_every_metric_is_tested_here() -> None:
    """A new metric needs a case by hand and an undefined one here, in a `test_metrics*.py` or in its laboratory's."""
    folder = Path(__file__).parent
    places = (*folder.glob("test_metrics*.py"), folder / "test_lossless.py")
    text = "".join(path.read_text(encoding="utf-8") for path in places)
    assert [name for name in catalog() if text.count(f'"{name}"') < 2] == []


@pytest.mark.parametrize("source", ["allocator_steady", "rss_steady"])
def test_steady_memory_is_that_of_finished_trials(
    tmp_path: Path, source: Literal["allocator_steady", "rss_steady"]
) -> None:
    script = Script()
    cell_id = script.cell()
    for value_bytes in (5_000, 6_000):
        trial_id = script.trial(cell_id)
        script.add(
            MemoryReading(trial_id=trial_id, cell_id=cell_id, at_ns=1, source=source, value_bytes=value_bytes),
        )
    script.fail(cell_id, "oom", "out of memory")
    script.add(MemoryReading(trial_id="t2", cell_id=cell_id, at_ns=1, source=source, value_bytes=9_000))
    assert value_of(only_cell(script, tmp_path), "steady_memory_bytes") == 6_000
