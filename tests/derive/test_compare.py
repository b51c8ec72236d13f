"""B beside A: exact ratios, who is whose partner, what is refused, what a bound says; JSON and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from builders import Script
from energy_builders import Power, Scope, counter_readings, energy_trial, opened, period
from scripted_facts import GPU
from tokbench.derive.compare.pages import IN_PROCESS, compared_document, notes
from tokbench.derive.compare.plain import dump_compared
from tokbench.derive.compare.result import Asked, Compared, Row, Verdict, compare_sides
from tokbench.derive.compare.sides import Side, read_side
from tokbench.derive.compare.thresholds import Held
from tokbench.derive.evaluate import Missing
from tokbench.derive.report.markdown import render_markdown
from tokbench.errors import SpecError
from tokbench.record.observations import CellPlanned, FactsRead
from tokbench.record.spec import CellSpec
from tokbench.record.sweep import make_cell
from tokbench.stats import Estimate

DECODE = "decode_tokens_per_s"
STEPS = (0.01, 0.01, 0.01)
SPREAD = (0.0099, 0.01, 0.0101)


def run_cell(script: Script, cell_id: str, steps: Sequence[float] = STEPS, prefill_s: float = 0.5) -> None:
    """One worker process per step time, two repetitions in each."""
    for number, step_s in enumerate(steps):
        for _ in range(2):
            script.trial(cell_id, step_s=step_s, prefill_s=prefill_s, worker=f"worker-{number}")


def side_of(script: Script, folder: Path) -> Side:
    return read_side(script.write(folder))


def simple(folder: Path, steps: Sequence[float] = STEPS, prefill_s: float = 0.5, **cell: object) -> Side:
    script = Script()
    run_cell(script, script.cell(**cell), steps, prefill_s)  # type: ignore[arg-type]
    return side_of(script, folder)


def compared(a: Side, b: Side, *fail_on: str, force: bool = False, strict: bool = False) -> Compared:
    return compare_sides(a, b, Asked(fail_on=fail_on, is_forced=force, is_strict=strict))


def rows_of(result: Compared) -> dict[str, Row]:
    (pair,) = result.pairs
    return {row.metric: row for row in pair.rows}


def ratio_of(row: Row) -> tuple[float, float | None, float | None]:
    assert isinstance(row.ratio, Estimate)
    return row.ratio.value, row.ratio.low, row.ratio.high


def with_facts(script: Script, **changes: object) -> None:
    """Change what the record says of the model that was loaded last."""
    index = max(i for i, event in enumerate(script.events) if isinstance(event, FactsRead) and event.model is not None)
    facts = script.events[index]
    assert isinstance(facts, FactsRead) and facts.model is not None
    script.events[index] = facts.model_copy(update={"model": facts.model.model_copy(update=changes)})


def with_attention(script: Script, attention: str) -> str:
    """A cell of the mode eager with an attention kernel of its own."""
    script.cell()
    planned = script.events[-1]
    assert isinstance(planned, CellPlanned)
    spec = CellSpec.model_validate_json(planned.resolved)
    cell = make_cell(spec.model_copy(update={"engine": spec.engine.model_copy(update={"attention": attention})}))
    script.events[-1] = planned.model_copy(update={"cell_id": cell.cell_id, "resolved": cell.resolved_json()})
    script._specs[cell.cell_id] = cell.spec
    return cell.cell_id


def test_exact_ratios_over_processes(tmp_path: Path) -> None:
    result = compared(simple(tmp_path / "a"), simple(tmp_path / "b", (0.0125,) * 3))
    rows = rows_of(result)
    assert (pytest.approx(0.8),) * 3 == ratio_of(rows[DECODE])
    assert ("slower", "unpaired blocks", 3, 3) == (
        rows[DECODE].outcome,
        rows[DECODE].basis,
        rows[DECODE].n_a,
        rows[DECODE].n_b,
    )
    assert "no difference shown" == rows["ttft_s"].outcome
    assert ("equal", "exact") == (rows["peak_memory_bytes"].outcome, rows["peak_memory_bytes"].basis)
    assert pytest.approx(0.55 / 0.54) == ratio_of(rows["e2e_latency_s"])[0]
    assert "slower" == rows["e2e_latency_s"].outcome
    assert Verdict.PASSED is result.verdict


def test_an_interval_over_processes_by_hand(tmp_path: Path) -> None:
    """Welch on log means of three processes a side: t(0.975, 4) = 2.7764, deviation of both 0.0100 in logs."""
    row = rows_of(compared(simple(tmp_path / "a", SPREAD), simple(tmp_path / "b", SPREAD)))[DECODE]
    value, low, high = ratio_of(row)
    assert (1.0, "no difference shown") == (pytest.approx(value), row.outcome)
    assert (pytest.approx(0.97758, abs=2e-5), pytest.approx(1.02293, abs=2e-5)) == (low, high)


def test_one_process_a_side_says_that_processes_may_differ(tmp_path: Path) -> None:
    result = compared(simple(tmp_path / "a", (0.01,)), simple(tmp_path / "b", (0.0125,)))
    row = rows_of(result)[DECODE]
    assert ("repetitions", 2, 2) == (row.basis, row.n_a, row.n_b)
    assert IN_PROCESS.format(processes=3) in notes(result)
    assert IN_PROCESS.format(processes=3) not in notes(compared(simple(tmp_path / "c"), simple(tmp_path / "d")))


def test_noise_is_said(tmp_path: Path) -> None:
    sides = [simple(tmp_path / name, (0.005, 0.01, 0.02)) for name in "ab"]
    assert "too noisy to say" == rows_of(compared(*sides))[DECODE].outcome


def test_one_repetition_has_no_interval(tmp_path: Path) -> None:
    sides = []
    for name in "ab":
        script = Script()
        script.trial(script.cell())
        sides.append(side_of(script, tmp_path / name))
    row = rows_of(compared(*sides, f"{DECODE}:-3%"))[DECODE]
    assert (pytest.approx(1.0), None, None) == ratio_of(row)
    assert Held.CANNOT_TELL is row.held


def test_sizes_are_compared_without_interval(tmp_path: Path) -> None:
    sides = []
    for peak in (1000, 1100):
        script = Script()
        cell_id = script.cell()
        for _ in range(3):
            script.trial(cell_id, peak_bytes=peak)
        sides.append(side_of(script, tmp_path / str(peak)))
    result = compared(*sides, "peak_memory_bytes:+10%")
    row = rows_of(result)["peak_memory_bytes"]
    assert (pytest.approx(1.1), None, None) == ratio_of(row)
    assert ("differs: more", Held.HELD, Verdict.PASSED) == (row.outcome, row.held, result.verdict)
    assert Verdict.BROKEN is compared(*sides, "peak_memory_bytes:+9%").verdict


@pytest.mark.parametrize(
    ("step_s", "prefill_s", "bound", "expected"),
    [
        (0.0125, 0.5, f"{DECODE}:-3%", Verdict.BROKEN),
        (0.0125, 0.5, f"{DECODE}:-20%", Verdict.PASSED),
        (0.0125, 0.5, f"{DECODE}:-19.9%", Verdict.BROKEN),
        (0.008, 0.5, f"{DECODE}:-0%", Verdict.PASSED),
        (0.01, 0.6, "ttft_s:+5%", Verdict.BROKEN),
        (0.01, 0.6, "ttft_s:+20%", Verdict.PASSED),
        (0.01, 0.4, "ttft_s:+0%", Verdict.PASSED),
    ],
)
def test_bounds_of_both_directions(
    tmp_path: Path, step_s: float, prefill_s: float, bound: str, expected: Verdict
) -> None:
    b = simple(tmp_path / "b", (step_s,) * 3, prefill_s)
    assert expected is compared(simple(tmp_path / "a"), b, bound).verdict


def test_a_bound_inside_the_interval_cannot_be_told(tmp_path: Path) -> None:
    """The interval is 0.978 to 1.023: -1 % lies in it, -3 % below it."""
    a, b = simple(tmp_path / "a", SPREAD), simple(tmp_path / "b", SPREAD)
    assert Held.CANNOT_TELL is rows_of(compared(a, b, f"{DECODE}:-1%"))[DECODE].held
    assert Held.HELD is rows_of(compared(a, b, f"{DECODE}:-3%"))[DECODE].held
    assert Verdict.PASSED is compared(a, b, f"{DECODE}:-1%").verdict
    assert Verdict.CANNOT_TELL is compared(a, b, f"{DECODE}:-1%", strict=True).verdict
    assert Verdict.PASSED is compared(a, b, f"{DECODE}:-3%", strict=True).verdict


@pytest.mark.parametrize(
    ("bound", "message", "fix"),
    [
        ("decode_tokens_per_s", "is no bound", "decode_tokens_per_s:-3%"),
        ("decode_tokens_per_s:3%", "is no bound", "a sign"),
        ("decode_tokens_per_s:-3", "is no bound", "percent"),
        ("decode_tokens:-3%", "no metric 'decode_tokens'", "did you mean `decode_tokens_per_s`?"),
        ("decode_tokens_per_s:+3%", "higher is better", "decode_tokens_per_s:-3% to fail when it is lower"),
        ("ttft_s:-5%", "lower is better", "ttft_s:+5% to fail when it is higher"),
        ("decode_tokens_per_s:-100%", "can never be broken", "below 100 %"),
    ],
)
def test_a_bound_that_is_none(tmp_path: Path, bound: str, message: str, fix: str) -> None:
    side = simple(tmp_path / "a")
    with pytest.raises(SpecError) as caught:
        compared(side, side, bound)
    assert message in caught.value.message
    assert fix in str(caught.value.fix)
    with pytest.raises(SpecError, match="is named twice"):
        compared(side, side, "ttft_s:+5%", "ttft_s:+6%")


def test_what_one_compares_may_differ_and_is_listed(tmp_path: Path) -> None:
    script = Script(device=GPU.model_copy(update={"name": "Another GPU", "driver_version": "999.1"}))
    run_cell(script, script.cell(mode="compiled"))
    result = compared(simple(tmp_path / "a"), side_of(script, tmp_path / "b"))
    (pair,) = result.pairs
    found = {row.field: (row.ours, row.theirs) for row in pair.match.differences}
    assert {"hardware", "mode", "device driver_version"} == set(found)
    assert ("eager", "compiled") == found["mode"]
    assert ((), ()) == (pair.refused, pair.match.unlike)
    text = render_markdown(compared_document(result))
    assert "mode eager → compiled" in text and "999.1" in text


def test_other_weights_under_one_name_are_refused(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    with_facts(script, sha256="cd" * 32)
    run_cell(script, cell_id)
    a, b = simple(tmp_path / "a"), side_of(script, tmp_path / "b")
    result = compared(a, b)
    assert (Verdict.UNLIKE, ()) == (result.verdict, result.pairs[0].rows)
    assert f"weights sha256 differs: {'ab' * 32} in A, {'cd' * 32} in B" == result.pairs[0].refused[0]
    forced = compared(a, b, force=True)
    assert (Verdict.PASSED, ("weights sha256",)) == (forced.verdict, forced.pairs[0].match.unlike)
    assert DECODE in rows_of(forced)


def test_a_checksum_that_one_side_lacks_is_listed_and_refuses_nothing(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    with_facts(script, sha256=None)
    run_cell(script, cell_id)
    (pair,) = compared(simple(tmp_path / "a"), side_of(script, tmp_path / "b")).pairs
    assert [("weights sha256", "ab" * 32, None)] == [
        (row.field, row.ours, row.theirs) for row in pair.match.differences
    ]
    assert () == pair.refused


def test_random_weights_are_not_pretrained_ones(tmp_path: Path) -> None:
    a, b = simple(tmp_path / "a"), simple(tmp_path / "b", weights="random")
    (pair,) = compared(a, b).pairs
    assert "weights differs: pretrained in A, random in B" in pair.refused
    assert Verdict.PASSED is compared(a, b, force=True).verdict


def test_nothing_shared_names_what_keeps_the_nearest_apart(tmp_path: Path) -> None:
    a, b = Script(), Script()
    for script, prompt in ((a, 100), (b, 200)):
        for mode in ("eager", "compiled"):
            run_cell(script, script.cell(mode=mode, prompt_tokens=prompt))
    sides = side_of(a, tmp_path / "a"), side_of(b, tmp_path / "b")
    result = compared(*sides)
    assert Verdict.UNLIKE is result.verdict
    assert [("eager", "eager"), ("compiled", "compiled")] == [
        (pair.match.a.engine_mode[1], pair.match.b.engine_mode[1]) for pair in result.pairs
    ]
    expected = "prompt_tokens differs: 100 in A, 200 in B"
    assert [expected, expected] == [pair.refused[0] for pair in result.pairs]
    assert Verdict.PASSED is compared(*sides, force=True).verdict


def test_an_invalid_cell_is_refused_and_a_suspect_one_is_marked(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    run_cell(script, cell_id)
    script.fail(cell_id, "engine", "recompiled while measuring")
    a, b = simple(tmp_path / "a", (0.01,)), side_of(script, tmp_path / "b")
    (pair,) = compared(a, b).pairs
    assert ("B is invalid: a graph was compiled while measuring",) == pair.refused
    forced = compared(a, b, force=True)
    text = render_markdown(compared_document(forced))
    assert "> A is suspect: too few repetitions" in text
    assert "> B is invalid: a graph was compiled while measuring" in text


def test_a_result_that_b_lost_is_refused_and_one_that_nobody_had_is_not(tmp_path: Path) -> None:
    a, b = Script(), Script()
    for script in (a, b):
        run_cell(script, script.cell())
        script.fail(script.cell(static_batch=64), "oom", "out of memory")
    run_cell(a, a.cell(static_batch=4))
    b.fail(b.cell(static_batch=4), "oom", "out of memory")
    result = compared(side_of(a, tmp_path / "a"), side_of(b, tmp_path / "b"))
    found = {pair.match.a.conditions.static_batch: pair for pair in result.pairs}
    assert [(), ("B has no result: oom: out of memory",), ()] == [found[size].refused for size in (1, 4, 64)]
    assert Verdict.UNLIKE is result.verdict
    assert "Neither side has a result: oom: out of memory" in render_markdown(compared_document(result))


def test_a_cell_without_a_partner_is_listed_and_strictness_counts_it(tmp_path: Path) -> None:
    script = Script()
    for mode in ("eager", "compiled"):
        run_cell(script, script.cell(mode=mode))
    both, eager = side_of(script, tmp_path / "a"), simple(tmp_path / "b")
    result = compared(both, eager, f"{DECODE}:-3%")
    (single,) = result.only_a
    assert "B has this cell with fake eager only" == single.why
    assert [Verdict.PASSED, Verdict.CANNOT_TELL] == [
        compared(both, eager, f"{DECODE}:-3%", strict=strict).verdict for strict in (False, True)
    ]
    assert (
        "fake compiled, static batch 1" in render_markdown(compared_document(result)).partition("Without a partner")[2]
    )
    assert ["A has this cell with fake eager only"] == [item.why for item in compared(eager, both).only_b]


def test_partners_of_one_engine_and_mode_are_told_apart_by_its_settings(tmp_path: Path) -> None:
    def side(name: str, *attentions: str, gpu: str = GPU.name) -> Side:
        script = Script(device=GPU.model_copy(update={"name": gpu}))
        for attention in attentions:
            run_cell(script, with_attention(script, attention))
        return side_of(script, tmp_path / name)

    a = side("a", "sdpa", "flash_attention_2")
    result = compared(a, side("b", "flash_attention_2", "sdpa"))
    assert [[], []] == [[row.field for row in pair.match.differences] for pair in result.pairs]
    elsewhere = compared(a, side("d", "flash_attention_2", "sdpa", gpu="Another GPU"))
    assert [["hardware"], ["hardware"]] == [[row.field for row in pair.match.differences] for pair in elsewhere.pairs]
    unclear = compared(a, side("c", "eager", "flex_attention"))
    assert Verdict.UNLIKE is unclear.verdict
    assert {"ambiguous: 2 cells of B have this engine and mode and differ in its settings"} == {
        single.why for single in unclear.only_a
    }


def test_a_missing_value_has_its_reason(tmp_path: Path) -> None:
    side = simple(tmp_path / "a")
    (pair,) = compare_sides(side, side, Asked(metrics=("kv_bytes_per_token",))).pairs
    (row,) = pair.rows
    assert isinstance(row.ratio, Missing) and "cache" in row.ratio.reason
    assert "no value" == row.outcome


def test_an_unknown_metric_names_the_nearest(tmp_path: Path) -> None:
    side = simple(tmp_path / "a")
    with pytest.raises(SpecError) as caught:
        compare_sides(side, side, Asked(metrics=("ttft",)))
    assert ("--metric", "did you mean `ttft_s`?") == (caught.value.key, caught.value.fix)


def test_json_holds_everything(tmp_path: Path) -> None:
    a, b = simple(tmp_path / "a"), simple(tmp_path / "b", (0.0125,) * 3)
    plain = json.loads(dump_compared(compared(a, b, f"{DECODE}:-3%")))
    assert {"schema", "metrics_version", "verdict", "notes", "a", "b", "pairs", "only_a", "only_b"} == set(plain)
    assert (1, "broken", "tokbench", 1) == (plain["schema"], plain["verdict"], plain["a"]["kind"], plain["b"]["cells"])
    (pair,) = plain["pairs"]
    assert {"key", "a", "b", "differences", "unlike", "refused", "rows"} == set(pair)
    assert {"id", "name", "verdict", "reasons", "no_result"} == set(pair["a"])
    row = next(row for row in pair["rows"] if row["metric"] == DECODE)
    assert {"text": f"{DECODE}:-3%", "ratio": 0.97, "held": "broken"} == row.pop("bound")
    assert pytest.approx(0.8) == row["ratio"]["low"]
    assert ("tokens/s", "higher", "slower", "unpaired blocks") == tuple(
        row[key] for key in ("unit", "better", "outcome", "basis")
    )
    documented = (Path(__file__).parents[2] / "docs" / "compare-json.md").read_text(encoding="utf-8")
    assert [] == [key for key in (*plain, *pair, *row, *pair["a"]) if f"`{key}`" not in documented]


def test_hostile_text_is_harmless(tmp_path: Path) -> None:
    hostile = "a/<script>|`*[x](y)\x1b[31m"
    sides = [simple(tmp_path / name, model=hostile) for name in "ab"]
    text = render_markdown(compared_document(compared(*sides)))
    assert "<script>" not in text and "\x1b" not in text
    assert "&lt;script&gt;" in text


def metered(folder: Path, meter: str, scope: Scope, load_w: float) -> Side:
    script, power = Script(), Power()
    cell_id = script.cell()
    script.trial(cell_id)
    energy_trial(script, cell_id, power, load_w=load_w)
    script.add(opened(meter, scope=scope), period(meter=meter), *counter_readings(power, 0, script.now_ns, meter=meter))
    return side_of(script, folder)


def test_joules_of_unlike_scope_are_not_divided(tmp_path: Path) -> None:
    board, twice = metered(tmp_path / "a", "nvml", "board", 300.0), metered(tmp_path / "b", "nvml", "board", 600.0)
    node = metered(tmp_path / "c", "hwmon", "node", 600.0)
    alike = rows_of(compared(board, twice))["energy_j_per_output_token"]
    assert pytest.approx(2.0) == ratio_of(alike)[0]
    unlike = rows_of(compared(board, node))["energy_j_per_output_token"]
    assert Missing("not comparable: A is of the board, B of the node") == unlike.b
    assert isinstance(unlike.a, Estimate) and isinstance(unlike.ratio, Missing)
