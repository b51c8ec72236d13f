"""Each reason code: a record that earns it; and that nothing is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from scripted_facts import CPU, GPU, HOST, ceilings
from tokbench.derive.codes import CRITERIA, Code, weight_of
from tokbench.derive.disturbances import Timeline, foreign_cpu_share
from tokbench.derive.evaluate import CellResult, evaluate
from tokbench.derive.remedy import REMEDIES
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import FactsRead, TrialStarted


def apart(script: Script) -> Script:
    """The same record with a process of its own for each trial, so that no cell is told to share one."""
    script.events = [
        event.model_copy(update={"worker_id": f"worker-{event.order}"}) if isinstance(event, TrialStarted) else event
        for event in script.events
    ]
    return script


def judged(script: Script, folder: Path) -> CellResult:
    (cell,) = evaluate(apart(script).run(folder), "run").cells
    return cell


def test_a_clean_cell_is_valid(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("valid", ())


def test_too_few_repetitions(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    script.trial(cell_id)
    script.trial(cell_id)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == (
        "suspect",
        (Code.TOO_FEW_REPETITIONS, Code.SHARED_PROCESS),
    )


def test_unsteady_warmup(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for is_steady in (True, False, None):
        script.trial(cell_id, is_steady=is_steady)
    assert judged(script, tmp_path).validity.reasons == (Code.UNSTEADY,)


@pytest.mark.parametrize(
    ("foreign", "verdict", "reasons"),
    [(0, "valid", ()), (2, "suspect", (Code.FOREIGN_LOAD,)), (None, "valid", (Code.FOREIGN_UNKNOWN,))],
)
def test_foreign_processes_on_the_device(
    tmp_path: Path, foreign: int | None, verdict: str, reasons: tuple[Code, ...]
) -> None:
    script = Script(device=GPU.model_copy(update={"foreign_processes": foreign}))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == (verdict, reasons)


@pytest.mark.parametrize(
    ("free_bytes", "verdict", "reasons"),
    [
        (84_000_000_000, "valid", (Code.FOREIGN_UNKNOWN,)),
        (70_000_000_000, "suspect", (Code.FOREIGN_LOAD, Code.FOREIGN_UNKNOWN)),
    ],
)
def test_memory_in_use_by_processes_that_cannot_be_seen(
    tmp_path: Path, free_bytes: int, verdict: str, reasons: tuple[Code, ...]
) -> None:
    device = GPU.model_copy(update={"foreign_processes": None, "free_memory_bytes": free_bytes})
    script = Script(device=device)
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == (verdict, reasons)


@pytest.mark.parametrize(("first", "second"), [(2, 0), (0, 2)])
def test_each_part_of_a_resumed_run_is_judged_by_its_own_device_facts(tmp_path: Path, first: int, second: int) -> None:
    script = Script(device=GPU.model_copy(update={"foreign_processes": first}))
    early, late = script.cell(), script.cell(static_batch=2)
    for _ in range(3):
        script.trial(early)
    script.add(FactsRead(at_ns=5, device=GPU.model_copy(update={"foreign_processes": second})))
    for _ in range(3):
        script.trial(late)
    verdicts = [cell.validity.reasons for cell in evaluate(apart(script).run(tmp_path), "run").cells]
    assert verdicts == [(Code.FOREIGN_LOAD,) * bool(first), (Code.FOREIGN_LOAD,) * bool(second)]


@pytest.mark.parametrize(
    ("error_s", "reasons"),
    [(None, ()), (0.0009, ()), (0.004, ()), (0.006, (Code.CLOCK_ERROR,))],
)
def test_clock_error(tmp_path: Path, error_s: float | None, reasons: tuple[Code, ...]) -> None:
    # Prefill lasts 0.5 s and decode 0.5 s: 5 ms are 1 %.
    script = Script()
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=0.125)
    script.events = [
        event.model_copy(update={"clock_error_s": error_s}) if event.event == "step_trace" else event
        for event in script.events
    ]
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("suspect" if reasons else "valid", reasons)


def test_a_clock_error_below_a_millisecond_spoils_no_window(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, prefill_s=0.01)
    script.events = [
        event.model_copy(update={"clock_error_s": 0.0009}) if event.event == "step_trace" else event
        for event in script.events
    ]
    assert judged(script, tmp_path).validity.reasons == ()


def test_every_code_has_a_criterion_and_a_remedy_and_stands_in_the_document() -> None:
    assert set(REMEDIES) == set(CRITERIA) == set(Code)
    document = (Path(__file__).parents[2] / "docs" / "validity.md").read_text(encoding="utf-8")
    rows = [line for line in document.splitlines() if line.startswith("| `")]
    wanted = [f"| `{c.name}` | {weight_of(c)} | {c.value} | {CRITERIA[c]} | {REMEDIES[c]} |" for c in Code]
    assert wanted == rows


@pytest.mark.parametrize(("processes", "reasons"), [(2, (Code.SHARED_PROCESS,)), (3, ())])
def test_few_processes_are_a_note(tmp_path: Path, processes: int, reasons: tuple[Code, ...]) -> None:
    script = Script()
    cell_id = script.cell()
    for index in range(4):
        script.trial(cell_id, worker=f"worker-{index % processes}")
    (cell,) = evaluate(script.run(tmp_path), "run").cells
    assert (cell.validity.verdict, cell.validity.reasons) == ("valid", reasons)


def test_random_weights_are_a_note(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(weights="random")
    for _ in range(3):
        script.trial(cell_id)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("valid", (Code.RANDOM_WEIGHTS,))


@pytest.mark.parametrize(
    ("device", "closing_s", "is_drifted"),
    [(GPU, 0.0102, False), (GPU, 0.0104, True), (GPU, 0.0096, True), (CPU, 0.0108, False), (CPU, 0.0112, True)],
)
def test_a_sentinel_that_drifts_makes_the_cells_of_its_block_suspect(
    tmp_path: Path, device: DeviceFacts, closing_s: float, is_drifted: bool
) -> None:
    script = Script(device=device)
    in_block, outside = script.cell(), script.cell(static_batch=2)
    for number, cell_id, last_s in ((0, outside, 0.01), (1, in_block, closing_s)):
        script.block(number, sentinel=outside)
        script.sentinel(outside, number, step_s=0.01)
        script.trial(cell_id)
        script.events = [
            event.model_copy(update={"block": number})
            if isinstance(event, TrialStarted) and (event.cell_id, event.purpose) == (cell_id, "measure")
            else event
            for event in script.events
        ]
        script.sentinel(outside, number, step_s=last_s)
    first, second = evaluate(script.run(tmp_path), "run").cells
    assert is_drifted == (Code.SENTINEL_DRIFT in first.validity.reasons)
    assert Code.SENTINEL_DRIFT not in second.validity.reasons


def contended(machine_cpu_s: float, device: DeviceFacts = CPU, usable_cores: int = 4) -> Script:
    """Three trials of 2 s between two samples; the worker used 8 of the machine's CPU seconds."""
    script = Script(device=device)
    host = HOST.model_copy(update={"logical_cores": 4, "usable_cores": usable_cores})
    script.add(FactsRead(at_ns=script.now_ns, host=host))
    cell_id = script.cell()
    script.load_sample(0.0)
    start_ns = script.now_ns
    for _ in range(3):
        script.trial(cell_id, step_s=0.25, prefill_s=1.0)
    script.wait(10.0 - (script.now_ns - start_ns) * 1e-9)
    script.load_sample(machine_cpu_s, worker_cpu_s=8.0)
    return script


def test_contended_cpu(tmp_path: Path) -> None:
    # 4 usable cores for 10 s: 8 foreign seconds are exactly a share of 0.2, which is allowed.
    run = contended(16.0).run(tmp_path / "quiet")
    (cell,) = run.cells.values()
    assert foreign_cpu_share(run, Timeline(run).around(cell.good_trials())) == pytest.approx(0.2)
    assert Code.CONTENDED_CPU not in judged(contended(15.9), tmp_path / "below").validity.reasons
    assert judged(contended(20.0), tmp_path / "loud").validity.reasons == (Code.CONTENDED_CPU,)


def test_contended_host_of_a_gpu_is_a_note(tmp_path: Path) -> None:
    cell = judged(contended(20.0, device=GPU), tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("valid", (Code.CONTENDED_HOST,))


def test_contention_is_unknown_where_only_some_cores_are_ours(tmp_path: Path) -> None:
    """A container with a quota: the host's other cores may be busy without taking anything from ours."""
    run = contended(30.0, usable_cores=2).run(tmp_path)
    (cell,) = run.cells.values()
    assert foreign_cpu_share(run, Timeline(run).around(cell.good_trials())) is None
    assert Code.CONTENDED_CPU not in judged(contended(30.0, usable_cores=2), tmp_path).validity.reasons


def test_contention_is_unknown_without_samples(tmp_path: Path) -> None:
    script = Script(device=CPU)
    script.trial(script.cell())
    run = script.run(tmp_path)
    (cell,) = run.cells.values()
    assert foreign_cpu_share(run, Timeline(run).around(cell.good_trials())) is None


@pytest.mark.parametrize(
    ("reason", "verdict", "codes"),
    [
        ("sw_thermal_slowdown", "suspect", (Code.THROTTLED,)),
        ("sw_power_cap", "valid", (Code.POWER_CAPPED,)),
        ("gpu_idle", "valid", ()),
    ],
)
def test_throttled(tmp_path: Path, reason: str, verdict: str, codes: tuple[Code, ...]) -> None:
    script = Script()
    cell_id = script.cell()
    script.load_sample(0.0)
    for _ in range(3):
        script.trial(cell_id)
    script.load_sample(0.0, throttle=(reason,))
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == (verdict, codes)


def test_on_battery(tmp_path: Path) -> None:
    script = Script()
    script.add(FactsRead(at_ns=script.now_ns, host=HOST.model_copy(update={"on_battery": True})))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id)
    assert judged(script, tmp_path).validity.reasons == (Code.ON_BATTERY,)


def test_wrong_token_count_invalidates(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(output_tokens=5)
    script.trial(cell_id, step_s=(0.01, 0.01, 0.01))
    for _ in range(2):
        script.trial(cell_id)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("invalid", (Code.TOKEN_COUNTS,))


def test_faster_than_the_ceiling_invalidates(tmp_path: Path) -> None:
    script = Script(ceiling=ceilings(read_bytes_per_s=1e11))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=0.01)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("invalid", (Code.ABOVE_ROOFLINE,))
    assert "decode_tokens_per_s" in cell.repetitions


def test_more_operations_in_decode_than_the_ceiling_allows_invalidate(tmp_path: Path) -> None:
    # 15 GFLOP a token, 100 tokens/s.
    script = Script(ceiling=ceilings(matmul_flops_per_s=1.4e12))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=0.01, prefill_s=10.0)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("invalid", (Code.ABOVE_MATMUL_CEILING,))


@pytest.mark.parametrize(("prefill_s", "reasons"), [(0.024, ()), (0.02, (Code.ABOVE_MATMUL_CEILING,))])
def test_more_operations_in_prefill_than_the_ceiling_allows_invalidate(
    tmp_path: Path, prefill_s: float, reasons: tuple[Code, ...]
) -> None:
    # 1.4 TFLOP for 100 tokens, at 60 TFLOP/s: 23.3 ms.
    script = Script(ceiling=ceilings(matmul_flops_per_s=6e13))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, prefill_s=prefill_s)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("invalid" if reasons else "valid", reasons)


@pytest.mark.parametrize(("step_s", "prefill_s"), [(0.004, 0.5), (0.01, 0.001)])
def test_faster_than_the_datasheet_invalidates(tmp_path: Path, step_s: float, prefill_s: float) -> None:
    # The H100 SXM reads 15 GB in 4.5 ms, and computes 1.4 TFLOP in 1.4 ms.
    script = Script(ceiling=ceilings(read_bytes_per_s=1e13, matmul_flops_per_s=1e16))
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id, step_s=step_s, prefill_s=prefill_s)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("invalid", (Code.ABOVE_DATASHEET,))


def test_recompiling_invalidates(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    for _ in range(3):
        script.trial(cell_id)
    script.fail(cell_id, "engine", "recompiled within a window")
    assert judged(script, tmp_path).validity.reasons == (Code.RECOMPILED,)


def test_not_interleaved(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(labels={"order": "not_interleaved"})
    for _ in range(3):
        script.trial(cell_id)
    cell = judged(script, tmp_path)
    assert (cell.validity.verdict, cell.validity.reasons) == ("valid", (Code.NOT_INTERLEAVED,))


def test_a_cell_without_a_finished_trial_is_invalid(tmp_path: Path) -> None:
    script = Script()
    script.fail(script.cell(), "crashed", "the worker died")
    cell = judged(script, tmp_path)
    assert (cell.status, cell.validity.verdict) == ("failed", "invalid")
