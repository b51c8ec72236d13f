"""The key `cost:` of a config: read, overridden, refused; it is the run's and enters no cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.errors import SpecError
from tokbench.record.cost import CostSpec
from tokbench.record.sweep import expand, read_config

BASE = "name: a\nmodel: {source: hf:a/b}\nengine: {kind: fake}\n"
BOUGHT = "{purchase_usd: 30000, lifetime_years: 4, usd_per_kwh: 0.12, pue: 1.3, grid_g_per_kwh: 400}"


def cost_of(folder: Path, text: str, *overrides: str) -> CostSpec | None:
    path = folder / "config.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    return read_config(path, overrides).run.cost


def test_nothing_is_stated_by_default(tmp_path: Path) -> None:
    assert cost_of(tmp_path, "") is None
    spec = CostSpec()
    assert {"electricity_included": False, "utilisation": (0.1, 0.4, 0.8)} == spec.model_dump(exclude_none=True)


def test_set_states_a_price_where_the_config_has_none(tmp_path: Path) -> None:
    assert cost_of(tmp_path, "", "cost.usd_per_hour=2.5") == CostSpec(usd_per_hour=2.5)


def test_set_goes_on_with_what_is_stated_and_lists_are_no_axes(tmp_path: Path) -> None:
    found = cost_of(tmp_path, f"cost: {BOUGHT}\n", "cost.host_overhead=[1.1, 1.6]", "cost.utilisation=[0.25, 1]")
    assert found == CostSpec(
        purchase_usd=30000.0,
        lifetime_years=4.0,
        usd_per_kwh=0.12,
        pue=1.3,
        grid_g_per_kwh=400.0,
        host_overhead=(1.1, 1.6),
        utilisation=(0.25, 1.0),
    )
    assert len(expand(read_config(tmp_path / "config.yaml"), lambda spec: 1)) == 1


def test_a_price_enters_no_cell(tmp_path: Path) -> None:
    ids = set()
    for text in ("", "cost: {usd_per_hour: 2}\n", f"cost: {BOUGHT}\n"):
        cost_of(tmp_path, text)
        ids |= {cell.cell_id for cell in expand(read_config(tmp_path / "config.yaml"), lambda spec: 1)}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("cost.usd_per_houre=2", "did you mean `usd_per_hour`"),
        ("cost.usd_per_hour=0", "greater than 0"),
        ("cost.pue=0.9", "1 or more"),
        ("cost.utilisation=[40]", "1 or less"),
        ("cost.utilisation=[]", "needs one share"),
        ("cost.host_overhead=[1.6, 1.1]", "the lower factor, then the upper one"),
        ("cost.host_overhead=1.3", "should be a list"),
        ("cost.usd_per_hour=2", "two prices of one machine"),
        ("cost.electricity_included=true", "state that price"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, override: str, said: str) -> None:
    text = f"cost: {BOUGHT}\n" if "usd_per_hour=2" in override or "included" in override else ""
    with pytest.raises(SpecError) as caught:
        cost_of(tmp_path, text, override)
    assert said in str(caught.value)
