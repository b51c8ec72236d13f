"""Every kind of input: which rows or cells it means, the interval it gives, its sources, and what is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from builders import Script
from claims_builders import TODAY, claim, evidence_of, verdict_on
from report_builders import figure
from scripted_facts import CPU, GPU
from tokbench.derive.claims.beneath import find_beneath
from tokbench.derive.claims.evidence import Evidence, Resolved, load_evidence
from tokbench.derive.claims.intervals import Interval
from tokbench.derive.claims.judge import judge_claims
from tokbench.derive.claims.resolving import resolve_inputs
from tokbench.derive.claims.saying import say_briefly
from tokbench.derive.claims.values import Lacking, Quantity, Series, State, Truth
from tokbench.derive.claims.verdicts import Because, Outcome, Strength
from tokbench.derive.evaluate import evaluate
from tokbench.derive.published import PublishedFigure
from tokbench.derive.published.facts import Fact
from tokbench.derive.published.prices import RentPrice
from tokbench.derive.repetitions import ByPrompt, ByWorker
from tokbench.errors import DataError
from tokbench.record.catalog import DeviceRow, PeakTflops, find_model

LLAMA = "Llama-3.1-8B-Instruct"


def resolved(item: Mapping[str, object], evidence: Evidence, **fields: object) -> Resolved:
    """One input `x` of a claim."""
    return resolve_inputs(claim({"x": item}, **fields), evidence)["x"]


def ends(item: Resolved) -> tuple[float, float, float]:
    assert isinstance(item.value, Quantity), item.value
    return tuple(item.value.interval)


def reason(item: Resolved) -> str:
    assert isinstance(item.value, Lacking), item.value
    return "; ".join(cause.reason for cause in item.value.causes)


def row(
    name: str, value: float, by: str = "vendor", published: str = "2024-08-27", **fields: object
) -> PublishedFigure:
    plain = figure("cerebras", value, published=published).model_dump()
    measurer = None if by in ("vendor", "artificial-analysis") else by
    measured_by = by if measurer is None else "third-party"
    return PublishedFigure.model_validate(
        {**plain, "id": name, "measured_by": measured_by, "measurer": measurer, "notes": None, **fields}
    )


def published(select: Mapping[str, object] | None = None, **how: object) -> dict[str, object]:
    return {"published": {"select": {"vendor": "cerebras", "metric": "tps_user", **(select or {})}, **how}}


THREE = (row("a", 1800.0), row("b", 1500.0, "artificial-analysis"), row("c", 2000.0, "some-tester", "2025"))


def test_the_interval_of_a_figure_is_the_range_over_sources() -> None:
    item = resolved(published(), evidence_of(figures=THREE))
    assert (1500.0, 1800.0, 2000.0) == ends(item)
    assert ["a", "b", "c"] == sorted(source.name for source in item.sources)
    assert 3 == len(item.value.rests)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("pick", "expected"),
    [
        ("min", (1500.0, 1500.0, 1500.0)),
        ("max", (2000.0, 2000.0, 2000.0)),
        ("median", (1800.0, 1800.0, 1800.0)),
        ("newest", (2000.0, 2000.0, 2000.0)),
        ("count", (3.0, 3.0, 3.0)),
    ],
)
def test_a_figure_is_picked(pick: str, expected: tuple[float, float, float]) -> None:
    assert expected == ends(resolved(published(pick=pick), evidence_of(figures=THREE)))


def test_a_figure_that_states_a_range_brings_all_of_it() -> None:
    ranged = row("ranged", 450, value_low=400, value_high=500)
    assert (400, 450, 500) == ends(resolved(published(), evidence_of(figures=(ranged,))))


def test_reposts_count_once_and_superseded_rows_never() -> None:
    figures = (row("a", 1800.0), row("b", 1800.0, "blog", repeats="a"), row("c", 900.0, "other", superseded_by="a"))
    item = resolved(published(pick="count"), evidence_of(figures=figures))
    assert (1.0, 1.0, 1.0) == ends(item)
    assert ["a", "b"] == sorted(source.name for source in item.sources)


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ({"published": {"since": "2024-08", "until": "2025-06"}}, ["a", "b"]),
        ({"published": {"since": "2025-01"}}, ["c"]),
        ({"published": {"until": "2025-12"}}, ["a", "b", "c"]),
        ({"measured_by": {"not": "vendor"}}, ["b", "c"]),
        ({"measured_by": ["vendor", "artificial-analysis"]}, ["a", "b"]),
        ({"total_params_b": {"min": 8, "max": 9}}, ["a", "b", "c"]),
        ({"total_params_b": {"min": 9}}, []),
        ({"model": "llama-3.1-8b"}, ["a", "b", "c"]),
        ({"model": "llama-3.?-*b"}, ["a", "b", "c"]),
        ({"model": "llama-3.[13]-8b"}, ["a", "b", "c"]),
        ({"model": ["llama-3-8b"]}, []),
        ({"ids": ["a", "c"]}, ["a", "c"]),
        ({"not_ids": {"b": "contradicts all others"}}, ["a", "c"]),
        ({"precision": "bf16"}, []),
    ],
)
def test_a_selection_means_rows(select: Mapping[str, object], expected: list[str]) -> None:
    item = resolved(published(select), evidence_of(figures=THREE))
    assert expected == sorted(source.name for source in item.sources)
    if not expected:
        assert "no published row" in reason(item)
    if "not_ids" in select:
        assert ("b: contradicts all others",) == item.left_out


def test_a_series_is_said_in_a_few_words() -> None:
    item = resolved(published(by="source"), evidence_of(figures=THREE))
    assert "3 values from 1,500 to 2,000 tokens/s" == say_briefly(item)
    assert "1,800 tokens/s (1,500 to 2,000)" == say_briefly(resolved(published(), evidence_of(figures=THREE)))


def test_figures_by_a_field_or_by_source_are_a_series() -> None:
    other = row("d", 450.0, model="meta-llama/Llama-3.1-70B-Instruct")
    evidence = evidence_of(figures=(*THREE, other))
    by_model = resolved(published(by="model"), evidence).value
    assert isinstance(by_model, Series)
    assert [("llama-3.1-8b", Interval(1500, 1800, 2000)), ("llama-3.1-70b", Interval(450, 450, 450))] == [
        (key, interval) for key, interval, _ in by_model.entries
    ]
    by_source = resolved(published(by="source"), evidence).value
    assert isinstance(by_source, Series)
    assert ["cerebras", "artificial-analysis", "some-tester"] == [key for key, _, _ in by_source.entries]


@pytest.mark.parametrize(
    "item",
    [
        published({"vendr": "x"}),
        published({"metric": "tps"}),
        published({"published": {"since": "last year"}}),
        published({"total_params_b": {"min": "many"}}),
        published({"ids": ["no-such-row"]}),
        published({"not_ids": ["a"]}),
        published(by="nothing"),
        published(pick="only"),
        {"published": {"select": {"metric": "tps_user"}}},
    ],
)
def test_a_wrong_selection_is_an_error_of_the_row(item: Mapping[str, object]) -> None:
    with pytest.raises(DataError) as caught:
        resolved(item, evidence_of(figures=THREE))
    assert ("some-claim", "inputs.x") == (caught.value.row, caught.value.field)


def test_two_sources_of_which_one_is_not_the_vendor_are_independent() -> None:
    row_of = claim({"x": published()}, "x > q(1000, 'tokens/s')", "x < q(1000, 'tokens/s')")
    found = verdict_on(row_of, evidence_of(figures=THREE[:2]))
    assert (Outcome.SUPPORTED, Strength.INDEPENDENT) == (found.outcome, found.strength)
    alone = verdict_on(row_of, evidence_of(figures=THREE[:1]))
    assert (Outcome.PARTLY, Strength.ONE_SOURCE) == (alone.outcome, alone.strength)


def fact(name: str, host: str, **fields: object) -> Fact:
    plain = {"topic": "t", "statement": "S.", "is_primary": True, "published": "2025", "read_on": "2026-11-21"}
    return Fact.model_validate(
        {"id": name, "source_url": f"https://{host}/page", "source_title": "Page", **plain, **fields}
    )


FACTS = {
    "one": fact("one", "a.org", value=70, unit="GB"),
    "two": fact("two", "b.org", parts={"low": {"value": 71000, "unit": "MB"}, "rate": {"value": 1, "unit": "GB/s"}}),
    "same": fact("same", "a.org", value=74, unit="GB"),
    "range": fact("range", "c.org", parts={"wh": {"value": (15.0, 16.0), "unit": "Wh"}}),
    "native": fact("native", "a.org", value=True),
}


def test_a_fact_is_taken_in_its_unit_and_several_are_a_range() -> None:
    evidence = evidence_of(facts=FACTS)
    assert (70e9, 70e9, 70e9) == ends(resolved({"fact": "one"}, evidence))
    both = resolved({"fact": ["one", "two.low"]}, evidence)
    assert (70e9, 70.5e9, 71e9) == ends(both)
    assert {"a.org", "b.org"} == {rest.source for rest in both.value.rests}  # type: ignore[union-attr]
    assert (15 * 3600, 15.5 * 3600, 16 * 3600) == ends(resolved({"fact": "range.wh"}, evidence))


def test_two_facts_of_one_site_are_one_source() -> None:
    row_of = claim({"x": {"fact": ["one", "same"]}}, "x > q(1, 'GB')", "x < q(1, 'GB')")
    assert Outcome.PARTLY is verdict_on(row_of, evidence_of(facts=FACTS)).outcome


def test_a_fact_that_is_true_or_false_is_used_as_it_stands() -> None:
    row_of = claim({"x": {"fact": "native"}}, "x", "not x")
    item = resolve_inputs(row_of, evidence_of(facts=FACTS))["x"]
    assert isinstance(item.value, Truth)
    assert State.TRUE is item.value.state
    assert Outcome.SUPPORTED is verdict_on(row_of, evidence_of(facts=FACTS)).parts[0].by_rules


@pytest.mark.parametrize("wrong", ["none", "two", "two.high", ["one", "two.rate"]])
def test_a_fact_that_is_not_there_is_an_error(wrong: object) -> None:
    with pytest.raises(DataError):
        resolved({"fact": wrong}, evidence_of(facts=FACTS))


DEVICE = DeviceRow(name="Maker X 4.5", vendor="maker", memory_gb=24, tdp_watts=None, peak_tflops=PeakTflops(bf16=100.0))


def test_a_device_gives_its_fields_in_their_units() -> None:
    evidence = evidence_of(devices={DEVICE.name: DEVICE})
    assert 24e9 == ends(resolved({"device": "Maker X 4.5.memory_gb"}, evidence))[1]
    assert 1e14 == ends(resolved({"device": "Maker X 4.5.peak_tflops.bf16"}, evidence))[1]
    assert "no source states tdp_watts" in reason(resolved({"device": "Maker X 4.5.tdp_watts"}, evidence))
    for wrong in ("Maker X 4.5.vendor", "Maker X 4.5.colour", "Maker Y.memory_gb"):
        with pytest.raises(DataError):
            resolved({"device": wrong}, evidence)


def offer(provider: str, usd: float) -> dict[str, object]:
    return {
        "usd_per_hour": usd,
        "provider": provider,
        "published": "2026-10",
        "read_on": "2026-11-22",
        "is_primary": True,
        "source_url": f"https://{provider}.org/",
        "source_title": "Prices",
    }


def test_a_rent_is_its_market_and_counts_providers() -> None:
    price = RentPrice.model_validate(
        {"device": DEVICE.name, "low": offer("a", 1.8), "mid": offer("b", 3.6), "high": offer("c", 7.2)}
    )
    evidence = evidence_of(prices={DEVICE.name: price}, devices={DEVICE.name: DEVICE, "Other": DEVICE})
    item = resolved({"price": DEVICE.name}, evidence)
    assert pytest.approx((0.0005, 0.001, 0.002)) == ends(item)
    assert 3 == len(item.value.rests)  # type: ignore[union-attr]
    assert "no rent of Other" in reason(resolved({"price": "Other"}, evidence))


def test_a_model_gives_closed_forms() -> None:
    model = find_model(LLAMA)
    evidence = evidence_of(models={model.name: model})
    assert 8_030_261_248 == ends(resolved({"model": f"{LLAMA}.parameters"}, evidence))[1]
    kv = {"name": LLAMA, "quantity": "kv_bytes_per_token", "dtype": "bfloat16"}
    assert 131_072 == ends(resolved({"model": kv}, evidence))[1]
    weights = {"name": LLAMA, "quantity": "weight_bytes", "dtype": "bfloat16"}
    assert 2 * 8_030_261_248 == ends(resolved({"model": weights}, evidence))[1]
    steps = {"name": LLAMA, "quantity": "read_bytes_per_step", "dtype": "bfloat16", "rows": [1, 4]}
    series = resolved({"model": steps}, evidence).value
    assert isinstance(series, Series)
    assert ("static_batch", ["1", "4"]) == (series.axis, [key for key, _, _ in series.entries])


@pytest.mark.parametrize(
    "wrong",
    [
        "Nobody.parameters",
        f"{LLAMA}.colour",
        f"{LLAMA}.experts",
        {"name": LLAMA, "quantity": "weight_bytes", "dtype": "int3"},
        {"name": LLAMA, "quantity": "read_bytes_per_step", "dtype": "bfloat16", "rows": 0},
    ],
)
def test_a_closed_form_that_makes_no_sense_is_an_error(wrong: object) -> None:
    model = find_model(LLAMA)
    with pytest.raises(DataError):
        resolved({"model": wrong}, evidence_of(models={model.name: model}))


def measured(metric: str = "TPOT", select: Mapping[str, object] | None = None, **how: object) -> dict[str, object]:
    return {"measured": {"select": {"weights": ["pretrained", "random"], **(select or {})}, "metric": metric, **how}}


def run(folder: Path, script: Script, name: str = "run") -> Evidence:
    return evidence_of(results=(evaluate(script.run(folder / name), name),), awaited={"speedup_x": "x"})


def sweep(folder: Path, **cell: object) -> Evidence:
    """Two batches: steps of 10 ms at 1 row and of 20 ms at 4 rows, in three processes each."""
    script = Script()
    for rows, step_s in ((1, 0.01), (4, 0.02)):
        cell_id = script.cell(static_batch=rows, **cell)  # type: ignore[arg-type]
        for index in range(3):
            script.trial(cell_id, step_s=step_s * (1 + 0.01 * index), worker=f"worker-{rows}-{index}")
    return run(folder, script)


def test_a_measured_input_has_the_interval_of_its_cells(tmp_path: Path) -> None:
    evidence = sweep(tmp_path)
    one = resolved(measured(select={"static_batch": 1}, pick="only"), evidence)
    low, mid, high = ends(one)
    assert low < 0.01 < mid < 0.0102 < high
    both = ends(resolved(measured(), evidence))
    assert (low, pytest.approx(2 * high)) == (both[0], both[2])
    assert "2 cells are meant" in reason(resolved(measured(pick="only"), evidence))


def test_a_sweep_is_a_series_over_its_axis(tmp_path: Path) -> None:
    inputs = {"b": measured("condition.static_batch", by="static_batch"), "t": measured(by="static_batch")}
    rules = ("slope(log(b), log(t / q(1, 's'))) > 0.4", "slope(log(b), log(t / q(1, 's'))) < 0.4")
    found = verdict_on(claim(inputs, *rules, needs="tokbench run x.yaml"), sweep(tmp_path))
    assert (Outcome.SUPPORTED, Strength.MEASURED_AT_SCALE) == (found.outcome, found.strength)


def test_a_sweep_over_two_devices_is_no_series(tmp_path: Path) -> None:
    cells = []
    for name, device, rows, step_s in (("gpu", GPU, 64, 0.01), ("cpu", CPU, 1, 1.0)):
        script = Script(device=device)
        cell_id = script.cell(static_batch=rows)
        for index in range(3):
            script.trial(cell_id, step_s=step_s * (1 + 0.01 * index), worker=f"worker-{index}")
        cells += run(tmp_path, script, name).results
    both = evidence_of(results=tuple(cells))
    swept = claim(
        {"t": measured(by="static_batch")},
        "greatest(t) / least(t) < 2",
        "greatest(t) / least(t) > 10",
        needs="tokbench run x.yaml",
    )
    assert Outcome.UNTESTED is verdict_on(swept, both).outcome
    assert "several devices" in reason(resolved(measured(by="static_batch"), both))
    assert isinstance(resolved(measured(by="hardware"), both).value, Series)
    assert isinstance(resolved(measured("condition.static_batch", by="static_batch"), both).value, Series)


def test_a_sweep_made_at_scale_on_one_device_is_that_devices(tmp_path: Path) -> None:
    """With the records of configs/moe.yaml and moe-h200.yaml, granularity was untested, though its command was run."""
    cells = []
    for name, device, parameters, step_s in (("gpu", GPU, 8_030_261_248, 0.01), ("cpu", CPU, 135_000_000, 1.0)):
        script = Script(device=device)
        for rows in (1, 4):
            cell_id = script.cell(static_batch=rows, parameters=parameters, labels={"kind": "swept"})
            for index in range(3):
                script.trial(cell_id, step_s=step_s * (1 + 0.01 * index), worker=f"worker-{rows}-{index}")
        cells += run(tmp_path, script, name).results
    for both in (evidence_of(results=tuple(cells)), evidence_of(results=tuple(reversed(cells)))):
        for metric in ("TPOT", "condition.static_batch"):
            item = resolved(measured(metric, by="static_batch"), both)
            assert isinstance(item.value, Series)
            assert ["1", "4"] == sorted(key for key, _, _ in item.value.entries)
            assert {"gpu"} == {source.name.split()[0] for source in item.sources}
            assert 2 == len(item.left_out) == sum("cpu" in text and "larger model" in text for text in item.left_out)
    assert "several devices" in reason(resolved(measured(by="label.kind"), evidence_of(results=tuple(cells))))


def two_gpus(folder: Path, *factors: float) -> Evidence:
    """Two devices at scale: steps of 10 ms at one row, and of so many times that at four."""
    cells = []
    for name, factor in zip(("one", "other"), factors, strict=True):
        script = Script(device=GPU.model_copy(update={"name": f"GPU {name}"}))
        for rows, step_s in ((1, 0.01), (4, 0.01 * factor)):
            cell_id = script.cell(static_batch=rows, labels={"kind": f"at-{rows}"})
            for index in range(3):
                script.trial(cell_id, step_s=step_s * (1 + 0.01 * index), worker=f"worker-{rows}-{index}")
        cells += run(folder, script, name).results
    return evidence_of(results=tuple(cells))


GROWTH = ("greatest(t) / least(t) > 2", "greatest(t) / least(t) < 1.5")


@pytest.mark.parametrize(
    ("factors", "outcome", "because"),
    [
        ((4.0, 3.0), Outcome.SUPPORTED, Because.RULE),
        ((1.1, 1.2), Outcome.REFUTED, Because.RULE),
        ((4.0, 1.1), Outcome.PARTLY, Because.DEVICES),
        ((1.1, 4.0), Outcome.PARTLY, Because.DEVICES),
        ((4.0, 2.0), Outcome.SUPPORTED, Because.RULE),  # the second straddles: it says nothing
        ((2.0, 1.1), Outcome.REFUTED, Because.RULE),
    ],
)
@pytest.mark.parametrize("axis", ["static_batch", "label.kind"])
def test_each_of_two_devices_at_scale_is_judged_by_itself(
    tmp_path: Path, factors: tuple[float, float], outcome: Outcome, because: Because, axis: str
) -> None:
    """Records of two GPUs made every sweep untested: "give records of one"."""
    row_of = claim({"t": measured(by=axis)}, *GROWTH, needs="tokbench run x.yaml")
    evidence = two_gpus(tmp_path, *factors)
    (found,) = judge_claims([row_of], evidence, TODAY)
    assert (outcome, because) == (found.outcome, found.parts[0].because)
    assert 1 == len({source.name.split()[0] for source in found.inputs["t"].sources})
    assert 2 == sum("judged by itself" in text for text in found.inputs["t"].left_out)


def test_inputs_that_mean_the_same_cells_follow_one_device(tmp_path: Path) -> None:
    """A share of one device beside the seconds of another is no pair; shares by themselves may be of several."""
    evidence = two_gpus(tmp_path, 4.0, 3.0)
    used = measured("condition.output_tokens", by="label.kind")
    beside = claim({"t": measured(by="label.kind"), "u": used}, "all(t / u > t)", "all(t / u < t)", needs="x")
    alone = claim({"u": used}, "all(u > 1)", "all(u < 1)", needs="x")
    assert [2, 4] == [len(resolve_inputs(row, evidence)["u"].sources) for row in (beside, alone)]


def test_a_selection_can_ask_for_a_kind_of_device(tmp_path: Path) -> None:
    evidence = two_gpus(tmp_path, 2.0, 2.0)
    counts = [len(resolved(measured(select={"device_kind": kind}), evidence).sources) for kind in ("cuda", "cpu")]
    assert [4, 0] == counts


def test_the_scale_and_the_labels_of_a_measurement_stay_with_the_verdict(tmp_path: Path) -> None:
    row_of = claim({"x": measured()}, "x > q(1, 'ms')", "x < q(1, 'ms')", needs="tokbench run x.yaml")
    random = verdict_on(row_of, sweep(tmp_path, weights="random"))
    assert "random weights" in random.labels
    small = verdict_on(row_of, sweep(tmp_path / "small", parameters=135_000_000))
    assert Strength.MEASURED_SMALL is small.strength
    script = Script(device=CPU)
    cell_id = script.cell()
    for index in range(3):
        script.trial(cell_id, worker=f"worker-{index}")
    assert Strength.MEASURED_SMALL is verdict_on(row_of, run(tmp_path, script, "cpu")).strength


def test_what_is_not_firm_does_not_count_and_is_named(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    script.fail(script.cell(static_batch=2), "oom", "out of memory")
    item = resolved(measured(), run(tmp_path, script))
    assert "no cell that is meant has a firm number" in reason(item)
    assert ["one repetition has no interval", "out of memory"] == [text.partition(": ")[2] for text in item.left_out]


def test_a_measurement_that_is_not_there_is_untested(tmp_path: Path) -> None:
    row_of = claim({"x": measured("far_off_x")}, needs="tokbench run speculation.yaml")
    found = verdict_on(row_of, dataclasses.replace(sweep(tmp_path), awaited={"far_off_x": "x"}))
    assert (Outcome.UNTESTED, ("tokbench run speculation.yaml",)) == (found.outcome, found.needs)
    assert "has no far_off_x" in found.missing[0]
    cannot = claim({"x": {**measured("far_off_x"), "if_missing": "open"}}, needs="none")
    nothing = verdict_on(cannot, evidence_of(awaited={"far_off_x": "x"}))
    assert (Outcome.OPEN, ("x: no version of tokbench computes far_off_x yet",)) == (nothing.outcome, nothing.missing)


@pytest.mark.parametrize(
    "item",
    [
        {"measured": {"select": {}, "metric": "TPOT"}},
        measured("tpot"),
        measured("condition.colour"),
        measured(select={"colour": "red"}),
        measured(by="colour"),
    ],
)
def test_a_wrong_measured_input_is_an_error(tmp_path: Path, item: Mapping[str, object]) -> None:
    with pytest.raises(DataError):
        resolved(item, sweep(tmp_path), needs="tokbench run x.yaml")


@pytest.mark.parametrize("item", [measured(by="colour"), published(by="colour")])
def test_a_wrong_key_is_an_error_even_without_evidence(item: Mapping[str, object]) -> None:
    with pytest.raises(DataError, match="colour"):
        resolved(item, evidence_of(), needs="tokbench run x.yaml")


def test_cells_can_be_a_series_of_their_own(tmp_path: Path) -> None:
    series = resolved(measured(by="cell"), sweep(tmp_path)).value
    assert isinstance(series, Series)
    assert ("cell", 2) == (series.axis, len(series.entries))


def test_labels_and_experiments_select_cells(tmp_path: Path) -> None:
    evidence = sweep(tmp_path, labels={"family": "moe"})
    for select, count in (({"label.family": "moe"}, 2), ({"label.family": "dense"}, 0), ({"experiment": "none"}, 2)):
        assert count == len(resolved(measured(select=select), evidence).sources)


@pytest.mark.parametrize("values", [ByPrompt((0.1, 0.2, 0.3)), ByWorker.of([("w", 1.0), ("w", 2.0), ("v", 3.0)])])
def test_values_of_prompts_and_of_energy_trials_are_no_repetitions(tmp_path: Path, values: tuple[float, ...]) -> None:
    """Three prompts of a cell with three repetitions stood as one value each."""
    (result,) = sweep(tmp_path).results
    cell = dataclasses.replace(result.cells[0], repetitions={"plain": (1.0, 2.0, 3.0), "other": values})
    assert [1.0, 2.0, 3.0] == [one.value for one in find_beneath(result, cell, "plain").repetitions]
    assert [None] * 3 == [one.value for one in find_beneath(result, cell, "other").repetitions]


def test_two_inputs_with_conditions_are_contrasted(tmp_path: Path) -> None:
    inputs = {"ours": measured("tps_user", {"static_batch": 1}), "theirs": published()}
    evidence = sweep(tmp_path)
    both = evidence_of(results=evidence.results, figures=THREE)
    found = verdict_on(claim(inputs, "theirs / ours > 1", "theirs / ours < 1", needs="tokbench run x.yaml"), both)
    (contrast,) = found.contrasts
    assert {"ours", "theirs"} == {contrast.one, contrast.other}
    assert "hardware" in contrast.different
    assert "precision" in contrast.unknown


def test_all_the_evidence_of_the_package_can_be_read() -> None:
    evidence = load_evidence()
    assert min(len(evidence.figures), len(evidence.facts), len(evidence.devices), len(evidence.models)) > 10
