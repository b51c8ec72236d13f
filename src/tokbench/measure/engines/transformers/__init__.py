"""PyTorch through transformers' model classes, driven by loops of our own: no `generate`, no host sync per token.

Modes: `eager` (dynamic cache, plain PyTorch), `compiled` (static cache, one graph with the argmax inside; on a GPU
captured into a CUDA graph). cuda, rocm (torch built with HIP), cpu and mps take the same path.
"""

from __future__ import annotations

from tokbench.measure.engines import EngineDescription, EngineRequest, StepEngine

DESCRIPTION = EngineDescription(
    kind="transformers",
    what="transformers' model classes under tokbench's own decode loop",
    modes=("eager", "compiled"),
    devices=("cuda", "rocm", "cpu", "mps"),
    packages=("torch", "transformers", "accelerate", "safetensors"),
    extra="local",
)


def open_engine(request: EngineRequest) -> StepEngine:
    """Load the weights and be ready to prepare cells.

    Raises:
        PlugError: what was asked for cannot be had with these packages.
        TrialError: the weights do not fit.
    """
    from tokbench.measure.engines.transformers.engine import TransformersEngine  # torch

    return TransformersEngine(request)
