"""Builders of the transformers engine on tiny random shapes of the catalogue. Whoever uses them imports torch."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tokbench.measure.engines import CellWork, EngineRequest
from tokbench.record.catalog import find_model
from tokbench.record.spec import EngineSpec, ModelSpec

QUICK = {"compile_backend": "eager"}
"""Traces the graph, with its guards, and generates no code."""


def request(
    shape: str = "tiny-llama",
    mode: str = "eager",
    *,
    dtype: str = "float32",
    device: str = "cpu",
    overrides: dict[str, object] | None = None,
    folder: Path | None = None,
    **engine: Any,
) -> EngineRequest:
    """What a worker would be asked to open; pretrained where a folder is named."""
    row = find_model(shape)
    options = engine.pop("options", QUICK if mode == "compiled" and device == "cpu" else {})
    return EngineRequest(
        model=ModelSpec(source=f"shape:{row.name}", weights="random" if folder is None else "pretrained", dtype=dtype),
        engine=EngineSpec(kind="transformers", mode=mode, options=options, **engine),
        device=device,
        model_name=row.name,
        config_json=json.dumps({**row.config, **(overrides or {})}),
        weights_folder=folder,
        threads=1,  # two would spin against whatever else runs here
        seed=3,
    )


def work(rows: int = 2, prompt_tokens: int = 12, output_tokens: int = 24, seed: int = 5) -> CellWork:
    """Random prompts of the tiny vocabulary."""
    draw = random.Random(seed)
    prompts = tuple(tuple(draw.randrange(512) for _ in range(prompt_tokens)) for _ in range(rows))
    return CellWork(prompts, output_tokens)


def run(engine: Any, steps: int) -> tuple[tuple[int, ...], ...]:
    """Tokens of one repetition from an empty cache."""
    engine.rewind(0)
    engine.prefill()
    list(engine.decode(steps))
    return engine.output_tokens()
