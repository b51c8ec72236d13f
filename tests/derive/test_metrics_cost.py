"""Cost metrics: one case by hand on scripted stamps and stated prices, and one where each is undefined."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from energy_builders import IDLE_W, LOAD_W, Power, counter_readings, energy_trial, opened, period
from tokbench.derive.cost import joules as cost_joules
from tokbench.derive.cost.amounts import Joules
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.record.run import CellRecord, Run, read_run
from tokbench.stats import Estimate

RENT = "usd_per_hour: 3.6"
POWER = "usd_per_kwh: 0.36, pue: 1.25, grid_g_per_kwh: 400, host_overhead: [1.0, 2.0]"
NAMES = (
    "usd_per_million_output_tokens",
    "hardware_usd_per_million_output_tokens",
    "electricity_usd_per_million_output_tokens",
    "co2e_g_per_million_output_tokens",
)


def cell_at(folder: Path, cost: str | None) -> CellResult:
    """Two rows of 5 tokens in 0.5 s + 4 * 0.125 s: 10 tokens a second; the prices as the config states them."""
    script = Script()
    cell_id = script.cell(static_batch=2)
    for _ in range(3):
        script.trial(cell_id, step_s=0.125, prefill_s=0.5)
    script.write(folder)
    if cost is not None:
        with (folder / "config.yaml").open("a", encoding="utf-8") as file:
            file.write(f"cost: {{{cost}}}\n")
    (cell,) = evaluate(read_run(folder), "run").cells
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
def metered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A board takes 5 J for each output token with its share of the prompt, and 20 W while it waits."""

    def found(run: Run, cell: CellRecord, find: object) -> tuple[Joules, str]:
        return Joules(busy_j=5.0, idle_w=20.0, scope="board"), ""

    monkeypatch.setattr(cost_joules, "find_joules", found)


def test_hardware_by_the_hour(tmp_path: Path) -> None:
    """3.6 USD an hour are a thousandth of a USD a second, for 10 * 0.4 tokens: 250 USD for a million."""
    cell = cell_at(tmp_path, RENT)
    assert value_of(cell, "output_tokens_per_s") == pytest.approx(10.0)
    assert value_of(cell, "hardware_usd_per_million_output_tokens") == pytest.approx(250.0)


def test_hardware_from_a_purchase(tmp_path: Path) -> None:
    """8760 USD and a quarter on top over 2 years are 0.625 USD an hour."""
    cell = cell_at(tmp_path, "purchase_usd: 8760, purchase_overhead: 0.25, lifetime_years: 2")
    assert value_of(cell, "hardware_usd_per_million_output_tokens") == pytest.approx(1e6 * 0.625 / 3600 / 4.0)


@pytest.mark.usefixtures("metered")
def test_electricity_carbon_and_both_together(tmp_path: Path) -> None:
    """5 J + 20 W * 0.6 / 0.4 / 10 = 8 J; at 1.5 and 1.25: 15 J = 15 / 3.6e6 kWh; a million: 4.1667 kWh."""
    cell = cell_at(tmp_path, f"{RENT}, {POWER}")
    kwh = 15 / 3.6
    assert value_of(cell, "electricity_usd_per_million_output_tokens") == pytest.approx(kwh * 0.36)
    assert value_of(cell, "co2e_g_per_million_output_tokens") == pytest.approx(kwh * 400)
    assert value_of(cell, "usd_per_million_output_tokens") == pytest.approx(250 + kwh * 0.36)


def test_electricity_from_a_counter(tmp_path: Path) -> None:
    """Two rows: 100 prompt tokens each and the first output token in 10 ms of load, 4 steps of 10 ms; idle between."""
    script, power = Script(), Power()
    cell_id = script.cell(static_batch=2)
    script.trial(cell_id, step_s=0.125, prefill_s=0.5)
    energy_trial(script, cell_id, power, prefill_s=0.01)
    script.add(opened(), period(), *counter_readings(power, 0, script.now_ns))
    script.write(tmp_path)
    with (tmp_path / "config.yaml").open("a", encoding="utf-8") as file:
        file.write(f"cost: {{{POWER}}}\n")
    (cell,) = evaluate(read_run(tmp_path), "run").cells
    joules = LOAD_W * 0.05 / 10 + IDLE_W * 1.5 / 10
    expected = joules * 1.5 * 1.25 / 3.6 * 0.36
    assert value_of(cell, "electricity_usd_per_million_output_tokens") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_undefined_without_prices(tmp_path: Path, name: str) -> None:
    reason = reason_of(cell_at(tmp_path, None), name)
    wanted = {
        "usd_per_million_output_tokens": "--set cost.usd_per_hour=…",
        "hardware_usd_per_million_output_tokens": "--set cost.purchase_usd=… --set cost.lifetime_years=…",
        "electricity_usd_per_million_output_tokens": "--set cost.usd_per_kwh=… --set cost.pue=…",
        "co2e_g_per_million_output_tokens": "--set cost.grid_g_per_kwh=… --set cost.pue=…",
    }
    assert wanted[name] in reason


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("hardware")])
def test_undefined_without_joules_and_never_hardware_alone(tmp_path: Path, name: str) -> None:
    assert "no meter was read in this run" in reason_of(cell_at(tmp_path, f"{RENT}, {POWER}"), name)


@pytest.mark.usefixtures("metered")
def test_a_boards_joules_are_not_taken_for_the_machine(tmp_path: Path) -> None:
    cell = cell_at(tmp_path, "usd_per_kwh: 0.36, pue: 1.25")
    reason = reason_of(cell, "electricity_usd_per_million_output_tokens")
    assert "of the board alone: --set cost.host_overhead=[…, …] (sources: 1.30 to 1.82 times the boards" in reason


@pytest.mark.usefixtures("metered")
def test_a_price_that_pays_for_the_electricity_is_the_whole(tmp_path: Path) -> None:
    cell = cell_at(tmp_path, f"{RENT}, electricity_included: true, {POWER}")
    assert value_of(cell, "usd_per_million_output_tokens") == pytest.approx(250.0)
    assert "pays for the electricity" in reason_of(cell, "electricity_usd_per_million_output_tokens")


def test_prices_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    assert "cost.usd_per_hour" in reason_of(cell_at(tmp_path, "usd_per_hour: dear"), NAMES[1])
    (tmp_path / "config.yaml").unlink()
    (cell,) = evaluate(read_run(tmp_path), "run").cells
    assert "is gone" in reason_of(cell, NAMES[1])


def test_a_price_that_is_changed_is_read_anew(tmp_path: Path) -> None:
    found: list[float] = []
    for price in ("3.6", "7.2"):
        folder = tmp_path / "run"
        cell = cell_at(folder, f"usd_per_hour: {price}")
        found.append(value_of(cell, "hardware_usd_per_million_output_tokens"))
    assert found == pytest.approx([250.0, 500.0])
