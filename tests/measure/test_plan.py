"""What a plan says before any device is touched: what fits, how large a batch may be, what can run side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from scripted_facts import CPU, GPU, HOST
from scripted_measure import PLACE, config_text, fake_plan
from tokbench.arithmetic import max_static_batch, predicted_memory_bytes
from tokbench.errors import PlugError, SpecError
from tokbench.measure import plan as plan_module
from tokbench.measure.engines import check_plug
from tokbench.measure.handover import config_json
from tokbench.measure.models import ResolvedModel, at_depth, parse_source, resolve_model
from tokbench.measure.plan import Place, Plan, bind, usable_memory_bytes
from tokbench.record.catalog import find_model, shape_from_config
from tokbench.record.spec import EngineSpec, ModelSpec, StaticBatchLoad
from tokbench.record.sweep import read_config

SHAPE = find_model("tiny-llama").shape
PROMPT, OUTPUT = 16, 8
CONFIG = """\
name: planned
model: {{source: "shape:tiny-llama", weights: random, dtype: {dtype}}}
engine: {{kind: transformers, mode: {mode}}}
workload: {{kind: synthetic, prompt_tokens: 16, output_tokens: 8}}
load: {{kind: static_batch, static_batch: {batch}}}
"""


def deep(folder: Path, layers: str) -> Plan:
    """The tiny model at so many layers."""
    path = folder / "asked.yaml"
    text = CONFIG.format(batch="1", mode="eager", dtype="float32").replace("random,", f"random, layers: {layers},")
    path.write_text(text, encoding="utf-8")
    return bind(read_config(path), place(1 << 34), resolve)


def test_a_depth_axis_is_planned_from_the_config_that_the_engine_gets(tmp_path: Path) -> None:
    plan = deep(tmp_path, "[1, 2, 4]")
    models = [group.model for group in plan.groups if group.model is not None]
    assert ["tiny-llama, 1 layer", "tiny-llama, 2 layers", "tiny-llama, 4 layers"] == [m.name for m in models]
    configs = [json.loads(config_json(model) or "") for model in models]
    assert [1, 2, 4] == [config["num_hidden_layers"] for config in configs]
    assert "decoder layers: 4 instead of 2" in str(models[2].note)
    shapes = [shape_from_config(config, "x") for config in configs]
    predicted = [predicted_memory_bytes(shape, "float32", 1, PROMPT + OUTPUT, PROMPT) for shape in shapes]
    assert predicted == [cell.predicted_memory_bytes for cell in plan.cells()]
    assert predicted[0] < predicted[1] == needed(1) < predicted[2]
    assert 3 == len({group.group for group in plan.groups})


def test_the_models_own_depth_is_left_alone(tmp_path: Path) -> None:
    (group,) = bound(tmp_path, place(1 << 34)).groups
    assert group.model is not None and "tiny-llama" == group.model.name
    assert find_model("tiny-llama").config == group.model.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 9}, "9 experts per token, but there are only 8 experts"),
        ({"num_key_value_heads": 3}, "query heads do not divide over 3 kv heads"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused_before_anything_is_loaded(
    tmp_path: Path, changes: dict[str, int], message: str
) -> None:
    """Seen: they were planned as a model that nobody can count, and failed in the worker in words of PyTorch."""

    def contradicting(spec: ModelSpec) -> ResolvedModel:
        found = resolve(spec)
        return dataclasses.replace(found, config={**found.config, **changes})

    path = tmp_path / "asked.yaml"
    text = CONFIG.format(batch="1", mode="eager", dtype="float32").replace("tiny-llama", "tiny-qwen3-moe")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=message) as refused:
        bind(read_config(path), place(1 << 34), contradicting)
    assert refused.value.fix


def test_a_model_that_does_not_say_its_depth_is_refused() -> None:
    model = dataclasses.replace(resolve(ModelSpec(source="shape:tiny-llama", weights="random")), config={})
    assert model == at_depth(model, None)
    with pytest.raises(SpecError, match="names no num_hidden_layers"):
        at_depth(model, 4)


def needed(rows: int, dtype: str = "float32") -> int:
    """Bytes that a cell of the tiny model is predicted to need."""
    return predicted_memory_bytes(SHAPE, dtype, rows, PROMPT + OUTPUT, PROMPT)


def place(usable: int) -> Place:
    """A CPU where a run may plan with so many bytes."""
    return Place(HOST, CPU, "asked for", "cpu", round(usable / plan_module.CPU_SHARE) + 1)


@pytest.fixture(autouse=True)
def no_packages_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning imports no library; whether one is installed is not the question here."""
    monkeypatch.setattr(plan_module, "check_plug", check_modes)


def check_modes(spec: EngineSpec) -> object:
    return check_plug(spec.model_copy(update={"kind": "fake", "mode": "default"}))


def resolve(spec: ModelSpec) -> ResolvedModel:
    """A row of data/models.yaml; nothing is fetched."""
    return resolve_model(
        parse_source(spec.source),
        spec.weights,
        spec.dtype,
        cache=Path("nowhere"),
        environ={},
        report=lambda text: None,
        download=False,
    )


def bound(
    folder: Path, where: Place, batch: str = "[1, 2]", mode: str = "eager", dtype: str = "float32", more: str = ""
) -> Plan:
    path = folder / "asked.yaml"
    path.write_text(CONFIG.format(batch=batch, mode=mode, dtype=dtype) + more, encoding="utf-8")
    return bind(read_config(path), where, resolve)


def batches(plan: Plan) -> dict[int, str | None]:
    """Every cell's static batch, and why it is refused."""
    loads = [(cell.cell.spec.load, cell.refusal) for cell in plan.cells()]
    return {load.static_batch: refusal for load, refusal in loads if isinstance(load, StaticBatchLoad)}


def test_max_is_what_memory_holds(tmp_path: Path) -> None:
    largest = 5
    plan = bound(tmp_path, place(needed(largest) + 10), batch="1-max+1")
    assert [1, 2, 3, 4, 5] == list(batches(plan))
    assert 5 == max_static_batch(SHAPE, "float32", PROMPT + OUTPUT, plan.usable_memory_bytes or 0, PROMPT)
    assert all(refusal is None for refusal in batches(plan).values())
    assert needed(4) == plan.cells()[3].predicted_memory_bytes


def test_a_cell_that_needs_more_than_can_be_used_is_refused_with_numbers(tmp_path: Path) -> None:
    found = batches(bound(tmp_path, place(needed(2)), batch="[1, 2, 64]"))
    assert [None, None] == [found[1], found[2]]
    assert str(found[64]).startswith("needs ") and "can be used" in str(found[64])


def test_nothing_fits_is_told_before_any_device_is_touched(tmp_path: Path) -> None:
    with pytest.raises(PlugError, match="no cell of this config fits: the smallest needs") as refused:
        bound(tmp_path, place(needed(1) - 1000))
    assert "a smaller model" in str(refused.value.fix)


def test_eager_groups_come_first(tmp_path: Path) -> None:
    plan = bound(tmp_path, place(1 << 34), mode="[compiled, eager]")
    assert ["eager", "compiled"] == [group.spec.engine.mode for group in plan.groups]
    assert 2 == len({group.group for group in plan.groups})


@pytest.mark.parametrize(("room", "is_interleaved"), [(2 * needed(2), True), (2 * needed(2) - 1, False)])
def test_groups_alternate_only_where_they_fit_side_by_side(tmp_path: Path, room: int, is_interleaved: bool) -> None:
    plan = bound(tmp_path, gpu_with(room), mode="[compiled, eager]")
    assert is_interleaved == plan.is_interleaved


def gpu_with(room: int) -> Place:
    """A GPU on which exactly `room` bytes can be used."""
    free = round(room / plan_module.GPU_SHARE)
    free += next(extra for extra in range(-3, 4) if int((free + extra) * plan_module.GPU_SHARE) == room)
    return dataclasses.replace(PLACE, device=GPU.model_copy(update={"free_memory_bytes": free}))


def test_a_group_of_which_nothing_fits_does_not_make_the_others_alternate(tmp_path: Path) -> None:
    text = CONFIG.format(batch="2", mode="[compiled, eager]", dtype="float32")
    huge = text.replace('source: "shape:tiny-llama"', 'source: ["shape:tiny-llama", "shape:llama-3.1-8b"]')
    path = tmp_path / "asked.yaml"
    path.write_text(huge, encoding="utf-8")
    plan = bind(read_config(path), place(needed(2) + needed(2) // 2), resolve)
    assert [0, 0] == sorted(group.predicted_peak_bytes() for group in plan.groups)[:2]
    assert not plan.is_interleaved


def test_one_group_is_always_interleaved(tmp_path: Path) -> None:
    assert bound(tmp_path, place(needed(2))).is_interleaved


def test_the_hardware_is_part_of_a_cells_identity(tmp_path: Path) -> None:
    here = bound(tmp_path, place(1 << 34))
    there = dataclasses.replace(place(1 << 34), device=CPU.model_copy(update={"name": "Another CPU"}))
    elsewhere = bound(tmp_path, there)
    assert {"Scripted CPU"} == {cell.cell.spec.hardware for cell in here.cells()}
    assert not {c.cell.cell_id for c in here.cells()} & {c.cell.cell_id for c in elsewhere.cells()}
    assert [c.cell.pair_key for c in here.cells()] == [c.cell.pair_key for c in elsewhere.cells()]


def test_the_datasheet_gives_a_roofline_and_an_unknown_device_none(tmp_path: Path) -> None:
    gpu = dataclasses.replace(PLACE, device=GPU)
    assert all((cell.roofline_decode_tokens_per_s or 0) > 0 for cell in bound(tmp_path, gpu).cells())
    plan = bound(tmp_path, place(1 << 34))
    assert all(cell.roofline_decode_tokens_per_s is None for cell in plan.cells())
    assert plan.expected_s(2) == pytest.approx(2 * sum(cell.expected_trial_s or 0 for cell in plan.cells()))


def test_fakes_need_no_model_and_predict_nothing(tmp_path: Path) -> None:
    plan = fake_plan(tmp_path)
    assert {(None, None)} == {(cell.predicted_memory_bytes, cell.refusal) for cell in plan.cells()}
    assert plan.is_interleaved
    assert plan.expected_s(3) is None


def test_an_unknown_experiment_is_refused_with_the_plan(tmp_path: Path) -> None:
    text = config_text() + "experiment: {kind: fakes}\n"
    with pytest.raises((PlugError, SpecError), match="fakes") as refused:
        fake_plan(tmp_path, text)
    assert "fake" in str(refused.value.fix)


def test_speculation_that_no_engine_does_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises((PlugError, SpecError), match="speculation"):
        fake_plan(tmp_path, config_text() + "speculation: {method: no_such_method}\n")


GIB = 1 << 30


@pytest.mark.parametrize(
    ("limit", "free", "usable"),
    [(None, 10 * GIB, 10 * GIB), (4 * GIB, 10 * GIB, 4 * GIB), (40 * GIB, 10 * GIB, 10 * GIB)],
)
def test_a_cpu_run_plans_with_what_is_free_below_the_cgroups_limit(limit: int | None, free: int, usable: int) -> None:
    host = HOST.model_copy(update={"memory_limit_bytes": limit})
    assert int(usable * plan_module.CPU_SHARE) == usable_memory_bytes(Place(host, CPU, "", "cpu", free))


def test_a_gpu_run_plans_with_what_is_free_on_the_card() -> None:
    card = GPU.model_copy(update={"free_memory_bytes": 10 * GIB})
    assert int(10 * GIB * plan_module.GPU_SHARE) == usable_memory_bytes(Place(HOST, card, "", "cuda:0", GIB))
    whole = GPU.model_copy(update={"free_memory_bytes": None})
    assert 81_000_000_000 == usable_memory_bytes(Place(HOST, whole, "", "cuda:0", GIB))
    unknown = GPU.model_copy(update={"free_memory_bytes": None, "memory_bytes": None})
    assert usable_memory_bytes(Place(HOST, unknown, "", "cuda:0", GIB)) is None


def test_a_resumed_run_keeps_the_batches_that_it_began_with(tmp_path: Path) -> None:
    before = bound(tmp_path, place(needed(8)), batch="1-max*2")
    assert [1, 2, 4, 8] == sorted(batches(before))
    config = read_config(tmp_path / "asked.yaml")
    cells = [cell.cell.spec for cell in before.cells()]
    after = bind(config, place(needed(2)), resolve, cells)
    assert [cell.cell.cell_id for cell in before.cells()] == [cell.cell.cell_id for cell in after.cells()]
    assert [1, 2] == sorted(batches(bind(config, place(needed(2)), resolve)))


def test_a_group_of_unknown_size_is_never_measured_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "shape_from_config", refuse_shape)
    assert not bound(tmp_path, place(1 << 40), mode="[compiled, eager]").is_interleaved


def refuse_shape(config: object, name: str) -> object:
    raise SpecError(f"{name}: a model type without closed forms")


def test_a_gpu_without_a_datasheet_row_gets_no_guessed_time(tmp_path: Path) -> None:
    card = GPU.model_copy(update={"name": "a card that nobody knows"})
    plan = bound(tmp_path, dataclasses.replace(PLACE, device=card))
    assert [(None, None)] * 2 == [(c.expected_trial_s, c.roofline_decode_tokens_per_s) for c in plan.cells()]
