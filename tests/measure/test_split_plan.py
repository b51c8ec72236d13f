"""What a config may say of several devices, and what a plan then promises. Starts no process, loads no torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from scripted_facts import CPU, GPU, HOST, ceilings
from tokbench.arithmetic import precision_on, predicted_memory_bytes
from tokbench.derive.evaluate import conditions_of
from tokbench.derive.metrics import CellContext, catalog
from tokbench.errors import PlugError, SpecError
from tokbench.measure import plan as plan_module
from tokbench.measure.choice import choose_devices
from tokbench.measure.engines import load_plug
from tokbench.measure.models import ResolvedModel, parse_source, resolve_model
from tokbench.measure.parallel import largest_static_batch, memory_per_device_bytes
from tokbench.measure.plan import Place, Plan, bind, usable_memory_bytes
from tokbench.record.catalog import find_model
from tokbench.record.spec import CellSpec, ModelSpec
from tokbench.record.sweep import expand, make_cell, read_config

SECOND = GPU.model_copy(update={"index": 1, "free_memory_bytes": 40_000_000_000})
FIRST = GPU.model_copy(update={"free_memory_bytes": 80_000_000_000})
CONFIG = """\
name: split
model: {{source: "shape:{model}", weights: random, dtype: float32}}
engine: {{kind: {engine}, mode: {mode}}}
device: {device}
workload: {{kind: synthetic, prompt_tokens: 16, output_tokens: 8}}
load: {load}
"""


@pytest.fixture(autouse=True)
def no_packages_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning imports no library; whether one is installed is not the question here."""
    monkeypatch.setattr(plan_module, "check_plug", lambda spec: load_plug(spec.kind).DESCRIPTION)


def written(folder: Path, device: str, **parts: str) -> Path:
    """A config of a tiny model on these devices."""
    asked = {"model": "tiny-llama", "engine": "transformers", "mode": "eager", "load": "{static_batch: 1}", **parts}
    path = folder / "asked.yaml"
    path.write_text(CONFIG.format(device=device, **asked), encoding="utf-8")
    return path


def resolve(spec: ModelSpec) -> ResolvedModel:
    """A row of data/models.yaml; nothing is fetched."""
    source = parse_source(spec.source)
    quiet = {"environ": {}, "download": False}
    return resolve_model(
        source,
        spec.weights,
        spec.dtype,
        cache=Path("nowhere"),
        report=lambda text: None,
        **quiet,  # type: ignore[arg-type]
    )


def bound(path: Path, place: Place | None = None) -> Plan:
    """The config on two CPU processes, or in another place."""
    return bind(read_config(path), place or Place(HOST, CPU, "asked for", "cpu", 1 << 34, (CPU,)), resolve)


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("[cuda:0, cpu]", "devices of different kinds (cpu, cuda)"),
        ("[cuda:0, rocm:1]", "devices of different kinds (cuda, rocm)"),
        ("[cuda:0, cuda:1, cuda:0]", "names cuda:0 twice"),
        ("[cuda, cuda:1]", "'cuda' does not say which one"),
        ("[auto, cuda:1]", "'auto' cannot be one of several devices"),
        ("[mps, mps]", "'mps' cannot be one of several devices"),
        ("[cuda:0, 1]", "should be text, not 1"),
        ("[]", "the list is empty"),
    ],
)
def test_a_list_that_cannot_hold_a_model_is_refused_with_its_line(tmp_path: Path, device: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_config(written(tmp_path, device))
    assert (4, True) == (caught.value.line, words in caught.value.message)


def test_several_devices_are_one_cell_and_one_device_in_a_list_is_that_device(tmp_path: Path) -> None:
    (cell,) = expand(read_config(written(tmp_path, "[cpu, cpu]")), lambda spec: 1)
    assert (("cpu", "cpu"), 2) == (cell.spec.device, cell.spec.device_count)
    (alone,) = expand(read_config(written(tmp_path, "[cpu]")), lambda spec: 1)
    (plain,) = expand(read_config(written(tmp_path, "cpu")), lambda spec: 1)
    assert ("cpu", plain.cell_id) == (alone.spec.device, alone.cell_id)
    assert cell.cell_id != plain.cell_id


def test_a_cell_over_several_devices_is_read_back_from_the_record(tmp_path: Path) -> None:
    (cell,) = expand(read_config(written(tmp_path, "[cpu, cpu]")), lambda spec: 1)
    assert cell.spec == CellSpec.model_validate_json(cell.resolved_json())


def test_more_devices_than_there_are() -> None:
    with pytest.raises(PlugError, match="no device cuda:2; there is cuda:0"):
        choose_devices(["cuda:0", "cuda:1", "cuda:2"], [FIRST, SECOND, CPU], True)


def test_devices_are_chosen_in_the_order_of_the_ranks() -> None:
    chosen = choose_devices(["cuda:1", "cuda:0"], [FIRST, SECOND, CPU], True)
    assert [1, 0] == [choice.device.index for choice in chosen]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"engine": "fake", "mode": "default"}, "engine 'fake' in mode 'default' cannot split a model over 2 devices"),
        ({"mode": "continuous", "load": "{kind: closed, concurrency: 1, requests: 2}"}, "in mode 'continuous' cannot"),
    ],
)
def test_engines_and_modes_that_cannot_split_a_model(tmp_path: Path, parts: dict[str, str], words: str) -> None:
    with pytest.raises(PlugError, match=words):
        bound(written(tmp_path, "[cpu, cpu]", **parts))


def test_heads_that_cannot_be_dealt_out_are_named(tmp_path: Path) -> None:
    three = Place(HOST, CPU, "asked for", "cpu", 1 << 34, (CPU, CPU))
    with pytest.raises(PlugError, match=r"4 attention heads \(num_attention_heads\).*over 3 devices"):
        bound(written(tmp_path, "[cpu, cpu, cpu]"), three)


def test_each_device_holds_its_part_and_a_copy_of_the_rest() -> None:
    shape, precision = find_model("tiny-llama").shape, precision_on("float32", "cpu")
    whole = predicted_memory_bytes(shape, precision, 3, 24, 16)
    copied = (2 * 2 + 1) * 64 * 4 + 3 * (6 * 512 + 16 * 2 * 64 * 4)
    assert whole == memory_per_device_bytes(shape, precision, 3, 24, 16, 1)
    assert copied + -(-(whole - copied) // 2) == memory_per_device_bytes(shape, precision, 3, 24, 16, 2)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_the_largest_batch_is_the_last_that_fits(rows: int) -> None:
    shape, precision = find_model("tiny-llama").shape, precision_on("float32", "cpu")
    memory = memory_per_device_bytes(shape, precision, rows + 1, 24, 16, 2) - 1
    assert rows == largest_static_batch(shape, precision, 24, memory, 16, 2)


def test_memory_is_that_of_the_fullest_card_and_cpu_processes_share_theirs() -> None:
    cards = Place(HOST, FIRST, "", "cuda:0", 1 << 40, (SECOND,))
    assert usable_memory_bytes(cards) == usable_memory_bytes(Place(HOST, SECOND, "", "cuda:1", 1 << 40))
    unknown = SECOND.model_copy(update={"free_memory_bytes": None, "memory_bytes": None})
    assert usable_memory_bytes(Place(HOST, FIRST, "", "cuda:0", 1 << 40, (unknown,))) is None
    alone, pair = (usable_memory_bytes(Place(HOST, CPU, "", "cpu", 1 << 34, more)) for more in ((), (CPU,)))
    assert alone is not None and pair == alone // 2


def test_a_plan_over_two_cards_names_both_and_adds_their_bandwidth(tmp_path: Path) -> None:
    pair = bound(written(tmp_path, "[cuda:0, cuda:1]"), Place(HOST, FIRST, "both", "cuda:0", 1 << 34, (SECOND,)))
    alone = bound(written(tmp_path, "cuda:0"), Place(HOST, FIRST, "one", "cuda:0", 1 << 34))
    assert ("cuda:0", "cuda:1") == pair.torch_devices()
    assert () == alone.torch_devices()
    assert ("cuda", "cuda") == pair.cells()[0].cell.spec.device
    assert [1, 0] == [facts.device.index for facts in pair.facts(1) if facts.device is not None]
    one, two = alone.cells()[0].roofline_decode_tokens_per_s, pair.cells()[0].roofline_decode_tokens_per_s
    assert one is not None and two == pytest.approx(2 * one)


def test_ceilings_of_several_cards_add_up_and_those_of_processes_on_one_cpu_do_not(tmp_path: Path) -> None:
    def ceiling(count: int, device_kind: str) -> float:
        script = Script(device=GPU if device_kind == "cuda" else CPU, ceiling=ceilings())
        script.cell()
        run = script.run(tmp_path / f"{count}-{device_kind}")
        (cell,) = run.cells.values()
        devices = device_kind if count == 1 else (device_kind,) * count
        cell.spec = cell.spec.model_copy(update={"device": devices})
        conditions = conditions_of(run, cell)
        assert (count, count) == (conditions.device_count, conditions.devices_per_stream)
        return next(iter(catalog()["read_bytes_per_s"].compute(CellContext(cell, run))))

    assert 2 * ceiling(1, "cuda") == ceiling(2, "cuda")
    assert ceiling(1, "cpu") == ceiling(2, "cpu")


def test_cells_with_and_without_a_split_are_set_side_by_side(tmp_path: Path) -> None:
    (cell,) = expand(read_config(written(tmp_path, "[cpu, cpu]")), lambda spec: 1)
    alone = make_cell(cell.spec.model_copy(update={"device": "cpu"}))
    assert alone.pair_key == cell.pair_key
    assert alone.group != cell.group
