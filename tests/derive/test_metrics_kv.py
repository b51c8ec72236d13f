"""The metrics of the cache and of a prefill's memory: each by hand, and where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from scripted_facts import CPU, GPU
from tokbench import arithmetic
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.derive.metrics import catalog
from tokbench.record.catalog import find_model
from tokbench.record.facts import EngineFacts
from tokbench.record.observations import CellPlanned, CellPrepared, FactsRead
from tokbench.record.spec import CellSpec
from tokbench.record.sweep import make_cell
from tokbench.stats import Estimate

LATENT = dict(find_model("kv-mla").config)
GQA_BYTES = 2 * 32 * 8 * 128 * 2
"""2 · layers · key heads · width · bytes of Llama-3.1-8B in bfloat16."""


def only_cell(script: Script, folder: Path) -> CellResult:
    (cell,) = evaluate(script.run(folder), "a run").cells
    return cell


def value_of(cell: CellResult, name: str) -> float:
    value = cell.metrics[name]
    assert isinstance(value, Estimate), value
    return value.value


def test_the_measured_cache_stands_beside_its_formula(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(weights="random", prompt_tokens=102)
    script.prepare(cell_id, cache_rows=128, kv_bytes=128 * GQA_BYTES)
    script.trial(cell_id)
    cell = only_cell(script, tmp_path)
    assert GQA_BYTES == value_of(cell, "kv_bytes_per_token") == value_of(cell, "predicted_kv_bytes_per_token")


@pytest.mark.parametrize(("kernel", "elements"), [("mla_latent", 512 + 64), ("mla_expanded", 32 * (128 + 64 + 128))])
def test_latent_attention_is_counted_as_it_is_kept(tmp_path: Path, kernel: str, elements: int) -> None:
    script = Script()
    cell_id = script.cell(weights="random", prompt_tokens=102, config=LATENT)
    script.trial(cell_id)
    script.add(prepared_with(script, cell_id, kernel, 128 * 8 * elements * 2))
    cell = only_cell(script, tmp_path)
    assert 8 * elements * 2 == value_of(cell, "kv_bytes_per_token") == value_of(cell, "predicted_kv_bytes_per_token")
    shape = find_model("kv-mla").shape
    assert shape.experts is None  # no layer of it has any
    read = arithmetic.bytes_read_per_step(shape, "bfloat16", 1, 104)
    assert read.weights + 104 * 8 * elements * 2 == value_of(cell, "bytes_read_per_step")


def test_a_file_in_types_of_its_own_has_no_bytes_of_a_step_and_no_formula(tmp_path: Path) -> None:
    """`gguf` is no type of activations: a reason, where once a whole report ended."""
    script = Script()
    cell_id = script.cell(prompt_tokens=102)
    script.prepare(cell_id, cache_rows=128, kv_bytes=128 * GQA_BYTES)
    script.trial(cell_id)
    planned = next(event for event in script.events if isinstance(event, CellPlanned))
    spec = CellSpec.model_validate_json(planned.resolved)
    made = make_cell(spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "gguf"})}))
    changed = {"cell_id": made.cell_id, "resolved": made.resolved_json()}
    script.events[script.events.index(planned)] = planned.model_copy(update=changed)
    script.events = [
        event.model_copy(update={"cell_id": made.cell_id}) if getattr(event, "cell_id", "") == cell_id else event
        for event in script.events
    ]
    cell = only_cell(script, tmp_path)
    assert GQA_BYTES == value_of(cell, "kv_bytes_per_token")
    for name in ("predicted_kv_bytes_per_token", "bytes_read_per_step", "roofline_decode_tokens_per_s"):
        assert isinstance(cell.metrics[name], Missing), name


def prepared_with(script: Script, cell_id: str, kernel: str, kv_bytes: int) -> CellPrepared:
    """The cell prepared once more, with the kernel that its engine says."""
    engine = next(event.engine for event in script.events if isinstance(event, FactsRead) and event.engine is not None)
    return CellPrepared(
        cell_id=cell_id,
        worker_id="worker-1",
        at_ns=script.now_ns,
        prepare_s=1.0,
        cache_rows=128,
        kv_bytes_allocated=kv_bytes,
        engine=EngineFacts.model_validate({**engine.model_dump(), "attention_kernel": kernel}),
    )


def test_a_cache_that_is_not_shown_has_no_prediction_either(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    cell = only_cell(script, tmp_path)
    found = cell.metrics["predicted_kv_bytes_per_token"]
    assert isinstance(found, Missing) and "does not show it" in found.reason


def test_prefill_memory_is_the_peak_less_the_weights(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell()
    script.trial(cell_id, peak_bytes=17_000_000_000)
    script.trial(cell_id, peak_bytes=17_500_000_000)
    cell = only_cell(script, tmp_path)
    assert 17.5e9 - value_of(cell, "weight_bytes") == value_of(cell, "prefill_extra_bytes")


@pytest.mark.parametrize(
    ("prompt", "peak", "reason"),
    [(100, None, "no allocator was read"), (5, 17_000_000_000, "no longer than the output")],
)
def test_prefill_memory_that_cannot_be_told(tmp_path: Path, prompt: int, peak: int | None, reason: str) -> None:
    script = Script(device=GPU if peak else CPU)
    script.trial(script.cell(prompt_tokens=prompt), peak_bytes=peak)
    found = only_cell(script, tmp_path).metrics["prefill_extra_bytes"]
    assert isinstance(found, Missing) and reason in found.reason
    assert "allocator_peak" in catalog()["prefill_extra_bytes"].formula


def test_a_prediction_needs_the_model_s_sizes(tmp_path: Path) -> None:
    script = Script()
    cell_id = script.cell(config=None)
    script.prepare(cell_id, cache_rows=128, kv_bytes=128 * GQA_BYTES)
    script.trial(cell_id)
    found = only_cell(script, tmp_path).metrics["predicted_kv_bytes_per_token"]
    assert isinstance(found, Missing) and "model's config" in found.reason
