"""The configs of the attention laboratory: blocks that differ in attention alone, and the cells that claims ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.arithmetic import kv_bytes_per_token
from tokbench.record.catalog import find_model
from tokbench.record.sweep import Cell, expand, read_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
BLOCKS = {"mha": None, "gqa8": None, "mqa": None, "mla": "mla_latent", "mla-absorbed": "mla_absorbed"} | {
    "mla-expanded": "mla_expanded"
}


def cells_of(name: str) -> list[Cell]:
    return list(expand(read_config(CONFIGS / name), lambda spec: 1))


@pytest.mark.parametrize("name", ["attention.yaml", "kv-h200.yaml"])
def test_a_family_differs_in_attention_alone(name: str) -> None:
    cells = cells_of(name)
    assert BLOCKS == {cell.spec.labels["attention"]: cell.spec.engine.attention for cell in cells}
    assert {"kv-block"} == {cell.spec.labels["claim"] for cell in cells}
    shapes = {
        cell.spec.labels["attention"]: find_model(cell.spec.model.source.removeprefix("shape:")).shape for cell in cells
    }
    alike = {
        (s.hidden, s.heads, s.feed_forward, s.vocab, s.layers, s.is_head_tied, s.expert_layers) for s in shapes.values()
    }
    assert 1 == len(alike)
    assert 128 == shapes["gqa8"].head_dim
    assert (shapes["mha"].heads, 8, 1) == tuple(shapes[block].kv_heads for block in ("mha", "gqa8", "mqa"))
    ratio = kv_bytes_per_token(shapes["gqa8"]) / kv_bytes_per_token(shapes["mla"])
    assert ratio == pytest.approx(2 * 8 * 128 / (512 + 64))
    contexts = {
        block: {c.spec.workload.prompt_tokens for c in cells if c.spec.labels["attention"] == block} for block in BLOCKS
    }
    assert all(len(found) >= 3 for found in contexts.values())  # fewer are no line


def test_growth_has_the_prompts_that_the_claim_takes_its_slopes_over() -> None:
    cells = cells_of("context-growth-h200.yaml")
    prompts = {
        kernel: {c.spec.workload.prompt_tokens for c in cells if c.spec.labels["kernel"] == kernel}
        for kernel in ("fused", "naive")
    }
    assert {8192, 16384, 32768} <= prompts["fused"]
    assert len(prompts["naive"]) >= 2 and max(p for p in prompts["naive"] if p is not None) < 32768
    assert {("fused", "sdpa"), ("naive", "eager")} == {
        (c.spec.labels["kernel"], c.spec.engine.attention) for c in cells
    }
    assert all((c.spec.workload.prompt_tokens or 0) > c.spec.workload.output_tokens for c in cells)


@pytest.mark.parametrize("name", ["v3-slice.yaml", "v3-slice-h200.yaml"])
def test_a_slice_has_three_depths_beyond_the_dense_layers_and_below_the_whole(name: str) -> None:
    cells = cells_of(name)
    row = find_model(cells[0].spec.model.source.removeprefix("shape:"))
    depths = {cell.spec.model.layers for cell in cells}
    assert len(depths) >= 3
    assert all(depth is not None and 3 < depth < row.shape.layers == 61 for depth in depths)
