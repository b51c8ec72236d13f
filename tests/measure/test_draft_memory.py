"""What drafts add to the predicted memory of a cell."""

from __future__ import annotations

from typing import Any

from tokbench.arithmetic import kv_cache_bytes, precision_on, predicted_memory_bytes, weight_bytes
from tokbench.measure.draft_memory import draft_memory_bytes
from tokbench.record.catalog import find_model, shape_from_config
from tokbench.record.spec import CellSpec

SHAPE = shape_from_config(find_model("tiny-llama").config, "tiny-llama")


def cell(speculation: Any, temperature: float = 0.0, rows: int = 2, experiment: Any = "none") -> CellSpec:
    return CellSpec.model_validate(
        {
            "model": {"source": "shape:tiny-llama", "weights": "random", "dtype": "float32"},
            "engine": {"kind": "transformers", "mode": "eager"},
            "workload": {"prompt_tokens": 12, "output_tokens": 20, "temperature": temperature},
            "load": {"kind": "static_batch", "static_batch": rows},
            "speculation": speculation,
            "experiment": experiment,
        }
    )


def test_a_model_that_drafts_counts_whole_with_its_cache() -> None:
    draft = {"source": "shape:tiny-llama", "weights": "random", "dtype": "float32"}
    found = draft_memory_bytes(cell({"method": "draft_model", "gamma": 4, "draft": draft}), SHAPE, SHAPE, "cpu")
    assert predicted_memory_bytes(SHAPE, "float32", 2, 12 + 20 + 4, 12) == found


def test_a_target_quantised_by_itself_counts_with_a_cache_of_its_own() -> None:
    asked = cell({"method": "self_quantised", "gamma": 3, "options": {"dtype": "int8"}})
    precision = precision_on("int8", "cpu")
    expected = weight_bytes(SHAPE, precision) + round(2 * kv_cache_bytes(SHAPE, 35, "float32"))
    assert expected == draft_memory_bytes(asked, SHAPE, None, "cpu")


def test_methods_without_weights_count_their_distributions_alone() -> None:
    asked = {"method": "early_exit", "gamma": 3, "options": {"layers": 1}}
    assert 0 == draft_memory_bytes(cell(asked), SHAPE, None, "cpu")
    assert 4 * 2 * 11 * 512 == draft_memory_bytes(cell(asked, temperature=0.7), SHAPE, None, "cpu")
    assert 0 == draft_memory_bytes(cell("none", temperature=0.7), SHAPE, None, "cpu")


def test_plain_steps_beside_the_rounds_have_a_cache_of_their_own() -> None:
    """Without it a cell that holds its rounds alone runs out of memory once their parts are timed."""
    asked = {"method": "prompt_lookup", "gamma": 3}
    found = draft_memory_bytes(cell(asked, experiment={"kind": "round_parts"}), SHAPE, None, "cpu")
    assert round(2 * kv_cache_bytes(SHAPE, 32, "float32")) == found
    assert 0 == draft_memory_bytes(cell(asked, experiment={"kind": "lossless"}), SHAPE, None, "cpu")
