"""The engine `mlx`: a Llama written in MLX, on a CPU or on Apple's GPUs; a step is a graph that MLX makes as it runs.

It shows what the framework does with the same weights; no kernel of it is ours. `open_engine` imports it.
"""

from __future__ import annotations

from tokbench.errors import PlugError
from tokbench.measure.array_engine import ArrayEngine
from tokbench.measure.engines import EngineDescription, EngineRequest

DESCRIPTION = EngineDescription(
    kind="mlx",
    what="a Llama in MLX; float32, static cache, greedy",
    modes=("eager",),
    devices=("cpu", "mps", "cuda"),
    packages=("mlx", "numpy"),
    extra="mlx",
    lives_apart=True,
)


def open_engine(request: EngineRequest) -> ArrayEngine:
    """Load the weights onto MLX's device.

    Raises:
        PlugError: options, a device that MLX does not have, or a model that is no plain Llama in float32.
    """
    if request.engine.options:
        fix = "leave engine.options out"
        raise PlugError(f"engine 'mlx' has no options ({', '.join(request.engine.options)})", fix=fix)
    from tokbench.measure.engines.mlx.llama import open_llama  # mlx

    return open_llama(request)
