"""Amounts, utilisations, sensitivity and the report's section, by hand on stated prices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from builders import Script
from tokbench.derive.cost import joules as cost_joules
from tokbench.derive.cost.amounts import (
    Joules,
    Point,
    co2e_g,
    electricity_usd,
    hardware_usd,
    joules_of_request,
    total_usd,
)
from tokbench.derive.cost.sensitivity import swings
from tokbench.derive.cost.utilisation import at_each_use
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.report import cost_section
from tokbench.derive.report.cost_section import COMMAND, TITLE, cost_sections
from tokbench.derive.report.document import Code, Document, Paragraph, Table
from tokbench.derive.report.markdown import render_markdown
from tokbench.derive.report.material import Material
from tokbench.derive.standing import Standing
from tokbench.record.cost import CostSpec
from tokbench.record.run import CellRecord, Run, read_run
from tokbench.record.spec import CellSpec, ClosedLoad, EngineSpec, ModelSpec, StaticBatchLoad, WorkloadSpec

PRICES = CostSpec(usd_per_hour=3.6, usd_per_kwh=0.36, pue=1.25, grid_g_per_kwh=400.0, host_overhead=(1.0, 2.0))
POINT = Point(PRICES, tokens_per_s=10.0, joules=Joules(5.0, 20.0, "board"))


def priced(**stated: object) -> Point:
    return dataclasses.replace(POINT, prices=PRICES.model_copy(update=stated))


def test_three_utilisations_side_by_side() -> None:
    uses = at_each_use(POINT, hardware_usd)
    assert [use.utilisation for use in uses] == [0.1, 0.4, 0.8]
    assert [use.low for use in uses] == pytest.approx([1000.0, 250.0, 125.0])
    assert [use.high for use in uses] == pytest.approx([1000.0, 250.0, 125.0])


def test_a_host_band_makes_a_range() -> None:
    """At 0.8: 5 + 20 * 0.25 / 10 = 5.5 J, times 1.25 and 1 or 2."""
    last = at_each_use(POINT, electricity_usd)[-1]
    kwh = 5.5 * 1.25 / 3.6
    assert (last.low, last.high) == (pytest.approx(kwh * 0.36), pytest.approx(2 * kwh * 0.36))


def test_a_whole_machine_needs_no_band() -> None:
    wall = dataclasses.replace(POINT, prices=PRICES.model_copy(update={"host_overhead": None}))
    wall = dataclasses.replace(wall, joules=Joules(5.0, 20.0, "wall"))
    assert co2e_g(wall) == pytest.approx(8.0 * 1.25 / 3.6 * 400)
    (_, middle, _) = at_each_use(wall, co2e_g)
    assert middle.low == middle.high == pytest.approx(co2e_g(wall))


def test_what_moves_the_result_most_comes_first() -> None:
    found = {swing.name: swing for swing in swings(POINT, total_usd)}
    assert next(iter(found)) == "utilisation"
    assert found["usd_per_hour"].spread == pytest.approx(250 * 0.4)
    assert (found["output_tokens_per_s"].at_from, found["output_tokens_per_s"].from_value) == (
        pytest.approx(250 / 0.8 + 0.36 / 3.6 * 1.25 * 1.5 * (5 + 3 / 0.8)),
        pytest.approx(8.0),
    )
    assert found["host_overhead"].spread == pytest.approx(8 * 1.25 / 3.6 * 0.36)
    assert found["host_overhead"].is_stated_range and not found["pue"].is_stated_range
    assert "grid_g_per_kwh" not in found
    spreads = [swing.spread for swing in found.values()]
    assert spreads == sorted(spreads, reverse=True)


def test_a_pue_is_never_lowered_below_one() -> None:
    (swing,) = [swing for swing in swings(priced(pue=1.1), electricity_usd) if swing.name == "pue"]
    assert (swing.from_value, swing.to_value) == (pytest.approx(1.0), pytest.approx(1.32))


def test_a_purchase_is_varied_by_its_own_inputs() -> None:
    bought = CostSpec(purchase_usd=8760.0, lifetime_years=2.0)
    found = [swing.name for swing in swings(Point(bought, 10.0, None), hardware_usd)]
    assert sorted(found) == ["lifetime_years", "output_tokens_per_s", "purchase_usd", "utilisation"]


def test_joules_of_a_request_hold_its_prompt() -> None:
    spec = CellSpec(
        model=ModelSpec(source="hf:a/b"),
        engine=EngineSpec(kind="fake"),
        workload=WorkloadSpec(prompt_tokens=100, output_tokens=5),
        load=StaticBatchLoad(static_batch=2),
    )
    assert joules_of_request(2.0, 0.1, spec) == pytest.approx(3.6)
    with pytest.raises(UndefinedError, match="no energy of the prefill was measured"):
        joules_of_request(2.0, None, spec)
    served = spec.model_copy(update={"load": ClosedLoad(kind="closed", concurrency=2, requests=4)})
    assert joules_of_request(2.0, None, served) == pytest.approx(2.0)


@pytest.mark.parametrize("key", ["usd_per_hour", "usd_per_kwh", "pue", "grid_g_per_kwh", "host_overhead"])
def test_every_input_that_is_missing_is_asked_for(key: str) -> None:
    amount = {"usd_per_hour": hardware_usd, "grid_g_per_kwh": co2e_g}.get(key, electricity_usd)
    with pytest.raises(UndefinedError, match=f"--set cost.{key}="):
        amount(priced(**{key: None}))


def material_of(folder: Path, cost: str, weights: str = "pretrained") -> Material:
    script = Script()
    cell_id = script.cell(static_batch=2, weights="random" if weights == "random" else "pretrained")
    for _ in range(3):
        script.trial(cell_id, step_s=0.125, prefill_s=0.5)
    script.write(folder)
    with (folder / "config.yaml").open("a", encoding="utf-8") as file:
        file.write(cost)
    results: Results = evaluate(read_run(folder), "run")
    return Material((results,), Standing(None, None, (), ()), (), (), (), ())


def text_of(material: Material) -> str:
    return render_markdown(Document("Report", tuple(cost_sections(material))))


def test_without_a_price_the_section_says_how_to_state_it(tmp_path: Path) -> None:
    (section,) = cost_sections(material_of(tmp_path, ""))
    assert section.title == TITLE
    assert [block.text for block in section.blocks if isinstance(block, Code)] == [COMMAND]
    assert not [block for block in section.blocks if isinstance(block, Table)]


def test_hardware_alone_is_told_and_the_rest_says_why_not(tmp_path: Path) -> None:
    material = material_of(tmp_path, "cost: {usd_per_hour: 3.6}\n", weights="random")
    sections = {section.title: section for section in cost_sections(material)}
    (table,) = (block for block in sections["Hardware"].blocks if isinstance(block, Table))
    assert [cell.text for cell in table.rows[0][-3:]] == ["1,000", "250", "125"]
    assert "random weights" in table.rows[0][0].text
    assert [column.title for column in table.columns[-3:]] == ["10 % used", "40 % used", "80 % used"]
    (said,) = (block.text for block in sections["Electricity"].blocks if isinstance(block, Paragraph))
    assert "--set cost.usd_per_kwh=… --set cost.pue=…" in said
    (said,) = (block.text for block in sections["Hardware and electricity"].blocks if isinstance(block, Paragraph))
    assert "cost.electricity_included=true" in said
    said = text_of(material)
    assert "Hardware of Llama-3.1-8B-Instruct (random weights)" in said
    assert "utilisation moves it most: 125 to 1,000." in said


def test_every_input_and_the_scope_stand_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(run: Run, cell: CellRecord, find: cost_joules.Find) -> tuple[Joules, str]:
        return Joules(5.0, 20.0, "board"), ""

    monkeypatch.setattr(cost_section, "find_joules", found)
    stated = "cost: {purchase_usd: 8760, lifetime_years: 2, usd_per_kwh: 0.36, pue: 1.25, grid_g_per_kwh: 400"
    said = text_of(material_of(tmp_path, f"{stated}, host_overhead: [1, 2], utilisation: [0.8]}}\n"))
    for key in ("purchase_usd", "lifetime_years", "usd_per_kwh", "pue", "grid_g_per_kwh", "host_overhead"):
        assert f"cost.{key}" in said
    assert "Joules metered on: board." in said
    kwh = 5.5 * 1.25 / 3.6
    assert f"{kwh * 0.36:.3f} – {2 * kwh * 0.36:.2f}" in said
    assert "764 – 1,530" in said


def test_a_config_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    material = material_of(tmp_path, "cost: {usd_per_hour: dear}\n")
    (section,) = cost_sections(material)
    first = section.blocks[0]
    assert isinstance(first, Paragraph) and first.tone == "warning" and "cost.usd_per_hour" in first.text
