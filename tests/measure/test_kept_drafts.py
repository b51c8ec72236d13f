"""What makes a drafter is kept from cell to cell for as long as the next one's would be the same."""

from __future__ import annotations

import dataclasses
import json

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, work  # noqa: E402
from tokbench.measure.engines import CellWork, DraftModel  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.record.catalog import find_model  # noqa: E402
from tokbench.record.spec import ModelSpec, SpeculationSpec  # noqa: E402


def replaying(alpha: float, gamma: int = 3, layers: int = 2) -> CellWork:
    model = ModelSpec(source="shape:tiny-llama", weights="random", dtype="float32")
    config = {**find_model("tiny-llama").config, "num_hidden_layers": layers}
    spec = SpeculationSpec.model_validate({"method": "replay", "gamma": gamma, "options": {"alpha": alpha}})
    draft = DraftModel(model, f"tiny-llama, {layers} layers", json.dumps(config), None)
    return dataclasses.replace(work(), speculation=spec, draft=draft)


def test_a_replay_of_another_acceptance_loads_no_other_model() -> None:
    """A sweep over alpha drew the same weights anew in every cell, and compiled for them."""
    engine = TransformersEngine(request("tiny-llama", "eager"))
    engine.prepare(replaying(0.5))
    kept = engine._keeper._kept
    for asked in (replaying(0.9), replaying(0.9, gamma=4)):
        engine.prepare(asked)
        assert kept is engine._keeper._kept
    engine.prepare(replaying(0.9, layers=1))
    assert kept is not engine._keeper._kept
    engine.close()
