"""The sweep grammar: axes in the order of the file, ranges, zip, exclude, labels, overrides; and who a cell is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.errors import SpecError
from tokbench.record.spec import CellSpec
from tokbench.record.sweep import Cell, expand, make_cell, read_config

BASE = {
    "name": "a",
    "model": "{source: 'shape:tiny-llama', weights: random, dtype: float32}",
    "engine": "{kind: fake}",
    "workload": "{prompt_tokens: 16, output_tokens: 4}",
    "load": "{static_batch: 1}",
}


def cells(folder: Path, *overrides: str, largest: int = 1, **keys: str) -> list[Cell]:
    path = folder / "c.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in (BASE | keys).items()), encoding="utf-8")
    return list(expand(read_config(path, overrides), lambda spec: largest))


def rows(found: list[Cell]) -> list[int]:
    return [cell.spec.load.static_batch for cell in found if cell.spec.load.kind == "static_batch"]


def test_axes_are_crossed_the_first_of_the_file_slowest(tmp_path: Path) -> None:
    found = cells(tmp_path, workload="{prompt_tokens: [128, 16]}", load="{static_batch: [4, 1]}")
    assert [(128, 4), (128, 1), (16, 4), (16, 1)] == [
        (cell.spec.workload.prompt_tokens, rows([cell])[0]) for cell in found
    ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1-4+1", [1, 2, 3, 4]),
        ("1-8*2", [1, 2, 4, 8]),
        ("1-9*2", [1, 2, 4, 8]),
        ("2-9+3", [2, 5, 8]),
        ("5-5+1", [5]),
        ("[1, 4-6+1, 9]", [1, 4, 5, 6, 9]),
        ("[2, 2, 2]", [2]),
    ],
)
def test_a_range_is_an_axis(tmp_path: Path, written: str, expected: list[int]) -> None:
    assert expected == rows(cells(tmp_path, load=f"{{static_batch: {written}}}"))


def test_max_is_what_memory_holds_for_each_cell(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    keys = BASE | {"workload": "{prompt_tokens: [16, 64]}", "load": "{static_batch: 1-max*4}"}
    path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()), encoding="utf-8")
    asked: list[CellSpec] = []

    def largest(spec: CellSpec) -> int:
        asked.append(spec)
        return 64 if spec.workload.prompt_tokens == 16 else 15

    assert [1, 4, 16, 64, 1, 4] == rows(list(expand(read_config(path), largest)))
    assert [1, 1] == [spec.load.static_batch for spec in asked if spec.load.kind == "static_batch"]


def test_max_below_the_start_still_gives_the_start(tmp_path: Path) -> None:
    assert [2] == rows(cells(tmp_path, load="{static_batch: 2-max*2}", largest=1))


def test_zip_pairs_axes(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        workload="{prompt_tokens: [16, 64], output_tokens: [4, 8]}",
        zip="[[workload.prompt_tokens, workload.output_tokens]]",
    )
    assert [(16, 4), (64, 8)] == [(c.spec.workload.prompt_tokens, c.spec.workload.output_tokens) for c in found]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ("[[workload.prompt_tokens, load.static_batch]]", r"lengths \(workload.prompt_tokens 2, load.static_batch 3\)"),
        ("[[workload.prompt_tokens], [workload.prompt_tokens]]", "names 'workload.prompt_tokens' twice"),
        ("[[workload.nothing]]", "names 'workload.nothing', which is no axis"),
    ],
)
def test_zip_that_cannot_be(tmp_path: Path, pairs: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        cells(tmp_path, workload="{prompt_tokens: [16, 64]}", load="{static_batch: [1, 2, 3]}", zip=pairs)


def test_exclude_drops_the_points_that_match_every_key_of_a_rule(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        workload="{prompt_tokens: [16, 64]}",
        load="{static_batch: [1, 2, 4]}",
        exclude="[{workload.prompt_tokens: 64, load.static_batch: [2, 4]}, {load.static_batch: 1}]",
    )
    assert [(16, 2), (16, 4)] == [(cell.spec.workload.prompt_tokens, rows([cell])[0]) for cell in found]


def test_models_and_engines_may_be_lists_of_objects(tmp_path: Path) -> None:
    found = cells(
        tmp_path,
        model="[{source: 'shape:a'}, {source: 'shape:b', dtype: float32}]",
        engine="[{kind: fake}, {kind: fake, mode: requests}]",
    )
    assert [("shape:a", "default"), ("shape:a", "requests"), ("shape:b", "default"), ("shape:b", "requests")] == [
        (cell.spec.model.source, cell.spec.engine.mode) for cell in found
    ]


def test_text_that_looks_like_a_range_is_text(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, workload="{kind: fixed, text: 1-2+3}", labels="{range: 1-4+1}")
    assert ("1-2+3", {"range": "1-4+1"}) == (cell.spec.workload.text, dict(cell.spec.labels))


def test_a_load_without_a_kind_is_a_static_batch(tmp_path: Path) -> None:
    assert cells(tmp_path, load="{kind: static_batch, static_batch: 3}") == cells(tmp_path, load="{static_batch: 3}")


def test_overrides_win_in_their_order_and_may_be_axes(tmp_path: Path) -> None:
    assert [1, 2, 4] == rows(cells(tmp_path, "load.static_batch=7", "load.static_batch=1-4*2"))


def test_an_override_makes_what_is_not_there(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, "engine.options.step_s=0.5", "energy.meters=[fake]", energy="auto")
    assert {"step_s": 0.5} == cell.spec.engine.options


def test_an_override_reaches_every_object_of_a_list(tmp_path: Path) -> None:
    found = cells(tmp_path, "model.dtype=float16", model="[{source: 'shape:a'}, {source: 'shape:b'}]")
    assert ["float16", "float16"] == [cell.spec.model.dtype for cell in found]


def test_too_many_cells_are_refused_before_they_are_made(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="the sweep has 4000000 cells or more"):
        cells(tmp_path, workload="{prompt_tokens: 1-2000+1}", load="{static_batch: 1-2000+1}")


def test_too_many_cells_up_to_max_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cells or more"):
        cells(tmp_path, load="{static_batch: 1-max+1}", largest=6000)


def test_the_identity_of_a_cell_does_not_move_between_versions(tmp_path: Path) -> None:
    """A changed default or a new key would cut every old run off from new ones."""
    (cell,) = cells(tmp_path)
    assert (GOLDEN_CELL_ID, GOLDEN_PAIR_KEY) == (cell.cell_id, cell.pair_key)


def test_a_key_that_came_later_is_kept_where_it_is_used(tmp_path: Path) -> None:
    (plain,) = cells(tmp_path)
    (used,) = cells(tmp_path, "model.layers=3", "engine.check_repeat=true")
    assert "layers" not in plain.resolved_json() and "check_repeat" not in plain.resolved_json()
    assert plain.cell_id != used.cell_id and plain.group != used.group
    read = CellSpec.model_validate_json(used.resolved_json())
    assert (3, True) == (read.model.layers, read.engine.check_repeat)


def test_a_list_of_layers_is_an_axis(tmp_path: Path) -> None:
    found = cells(tmp_path, "model.layers=2-8*2")
    assert [2, 4, 8] == [cell.spec.model.layers for cell in found]
    assert 3 == len({cell.pair_key for cell in found}) == len({cell.group for cell in found})


GOLDEN_CELL_ID = "b1ae9cf02171"
GOLDEN_PAIR_KEY = "1e3d78b9e3f8"


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"},
        {"seed": "9"},
        {"stop": "{rel_ci: 0.5, min_repetitions: 2}"},
        {"energy": "off"},
        {"compare": "{published: []}"},
        {"budget": "{total: 5s}"},
        {"labels": "{family: moe}"},
    ],
)
def test_what_does_not_change_a_cell(tmp_path: Path, change: dict[str, str]) -> None:
    assert [cell.cell_id for cell in cells(tmp_path)] == [cell.cell_id for cell in cells(tmp_path, **change)]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "{source: 'shape:tiny-llama', weights: random, dtype: float16}"},
        {"workload": "{prompt_tokens: 17, output_tokens: 4}"},
        {"load": "{static_batch: 2}"},
        {"speculation": "{method: x}"},
        {"experiment": "{kind: fake}"},
    ],
)
def test_what_changes_a_cell_and_its_pair(tmp_path: Path, change: dict[str, str]) -> None:
    (before,), (after,) = cells(tmp_path), cells(tmp_path, **change)
    assert before.cell_id != after.cell_id
    assert before.pair_key != after.pair_key


@pytest.mark.parametrize("change", [{"engine": "{kind: transformers, mode: eager}"}, {"device": "cuda"}])
def test_engine_and_device_change_the_cell_and_not_the_pair(tmp_path: Path, change: dict[str, str]) -> None:
    (before,), (after,) = cells(tmp_path), cells(tmp_path, **change)
    assert before.cell_id != after.cell_id
    assert before.pair_key == after.pair_key


def test_hardware_changes_the_cell_and_not_the_pair(tmp_path: Path) -> None:
    (before,) = cells(tmp_path)
    after = make_cell(before.spec.model_copy(update={"hardware": "NVIDIA H200"}))
    assert before.cell_id != after.cell_id
    assert before.pair_key == after.pair_key


def test_the_load_and_the_workload_do_not_part_a_group(tmp_path: Path) -> None:
    found = cells(tmp_path, workload="{prompt_tokens: [16, 64]}", load="{static_batch: [1, 2]}")
    assert 1 == len({cell.group for cell in found})
    assert 2 == len({cell.group for cell in cells(tmp_path, engine="{kind: fake, mode: [default, requests]}")})


def test_labels_are_carried_and_stand_outside_the_identity(tmp_path: Path) -> None:
    (cell,) = cells(tmp_path, labels="{family: moe}")
    assert {"family": "moe"} == cell.spec.labels
    assert "moe" not in cell.resolved_json()


def test_the_config_is_another_one_when_an_override_changes_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("".join(f"{key}: {value}\n" for key, value in BASE.items()), encoding="utf-8")
    assert read_config(path).sha256() == read_config(path, ["name=a"]).sha256()
    assert read_config(path).sha256() != read_config(path, ["seed=2"]).sha256()
