"""The Energy section, its figure and `summary.json`: what a metered run shows, and why another has none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import Script
from energy_builders import LOAD_W, Power, counter_readings, energy_trial, opened, period, power_readings
from scripted_facts import CPU
from tokbench.derive.codes import Code
from tokbench.derive.evaluate import CellResult, evaluate
from tokbench.derive.report.write import ReportPaths, write_report
from tokbench.record.observations import EnergyReading, LoadSample


def reported(script: Script, folder: Path, with_figures: bool = False) -> tuple[str, ReportPaths, CellResult]:
    results = evaluate(script.run(folder / "run"), "run")
    paths = write_report([results], (), folder / "out", vendors=(), with_figures=with_figures)
    return paths.markdown.read_text(encoding="utf-8"), paths, results.cells[0]


def metered(batches: tuple[int, ...] = (1,), poll_s: float = 0.001, power_share: float = 1.0) -> Script:
    script, power = Script(), Power()
    cells = [script.cell(static_batch=rows) for rows in batches]
    for cell_id in cells:
        script.trial(cell_id)
        energy_trial(script, cell_id, power, prefill_s=0.01)
        begin = power.from_ns[-2]
        for at_ns, heat in ((begin + 500_000_000, 51.0), (begin + 900_000_000, 58.0)):
            script.add(LoadSample(at_ns=at_ns, temperature_c=heat, throttle_reasons=("sw_power_cap",)))
    script.add(
        opened(power_limit_w=700.0),
        period(),
        *counter_readings(power, 0, script.now_ns, poll_s=poll_s),
        *power_readings(power, 0, script.now_ns, share=power_share),
    )
    return script


def test_a_row_tells_all_that_belongs_to_its_number(tmp_path: Path) -> None:
    text, _, _ = reported(metered(), tmp_path)
    section = text.partition("## Energy")[2].partition("\n## ")[0]
    for told in ("3.50 J/token", "2.80 J/token", "35.0 mJ/token", "350", "70.0", "0.286"):
        assert told in section
    for told in ("board: gpu", "nvml nvml_counter (counter)", "2.00 s", "100 ms", "51 – 58", "sw_power_cap", "700"):
        assert told in section
    assert "host CPU and memory, other cards, fans, the power supply's losses, cooling" in section
    assert "Energy, run: not measured" not in text


def test_a_permission_reason_reaches_the_report_with_its_remedy(tmp_path: Path) -> None:
    script = Script(device=CPU)
    script.trial(script.cell())
    script.meter_absent("rapl", "energy_uj may be read by root alone", "sudo chmod o+r energy_uj")
    text, paths, _ = reported(script, tmp_path)
    section = text.partition("## Energy")[2].partition("\n## ")[0]
    assert "run: no energy, because rapl: energy_uj may be read by root alone (sudo chmod o+r energy_uj)." in section
    assert "Energy, run: not measured, because rapl: energy_uj may be read by root alone" in text
    (cell,) = json.loads(paths.summary.read_text(encoding="utf-8"))["cells"]
    assert [] == cell["energy"]["rows"]
    assert cell["energy"]["missing"].startswith("rapl: energy_uj")


@pytest.mark.parametrize(
    ("broken", "code", "told"),
    [
        ({"poll_s": 0.05}, Code.ENERGY_BOUND, "a longer energy.window narrows it"),
        ({"power_share": 0.8}, Code.SOURCES_DISAGREE, "the sources disagree: more than 5 % apart"),
    ],
)
def test_doubts_stand_at_the_row_and_in_the_codes(
    tmp_path: Path, broken: dict[str, float], code: Code, told: str
) -> None:
    text, _, cell = reported(metered(**broken), tmp_path)  # type: ignore[arg-type]
    assert told in text
    assert code in cell.validity.reasons
    clean = reported(metered(), tmp_path / "clean")[2]
    assert code not in clean.validity.reasons


def test_the_summary_holds_every_row(tmp_path: Path) -> None:
    _, paths, _ = reported(metered(), tmp_path)
    (cell,) = json.loads(paths.summary.read_text(encoding="utf-8"))["cells"]
    (row,) = cell["energy"]["rows"]
    assert ("nvml", ["gpu"], "board", True) == (row["meter"], row["domains"], row["scope"], row["is_headline"])
    assert row["output"]["mean_w"] == pytest.approx(LOAD_W)
    assert row["output"]["bound"]["total"] <= 0.01
    assert row["agreement"] == pytest.approx(1.0)
    assert (51.0, 58.0, ["sw_power_cap"], 700.0) == (
        row["temperature_low_c"],
        row["temperature_high_c"],
        row["clock_events"],
        row["power_limit_w"],
    )


def test_other_domains_are_shown_and_never_added(tmp_path: Path) -> None:
    script = metered()
    script.add(opened("rapl", "package-0", "package"), period(meter="rapl", domain="package-0"))
    script.add(*counter_readings(Power(), 0, script.now_ns, meter="rapl", domain="package-0"))
    script.events.sort(key=lambda event: event.at_ns if isinstance(event, EnergyReading) else 0)
    text, _, _ = reported(script, tmp_path)
    assert "Other domains that were metered meanwhile. They are not added to the above." in text
    assert "rapl package: package-0" in text
    assert "3.50 J/token" in text


def test_the_figure_needs_two_batches(tmp_path: Path) -> None:
    one = reported(metered(), tmp_path / "one", with_figures=True)[1]
    two = reported(metered((1, 8)), tmp_path / "two", with_figures=True)[1]
    assert (False, True) == tuple("energy.png" in [p.name for p in paths.figures] for paths in (one, two))
