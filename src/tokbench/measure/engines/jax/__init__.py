"""The engine `jax`: a Llama written in JAX, compiled by XLA, one program for the prefill and one for a step.

It shows what the framework does with the same weights; no kernel of it is ours. `open_engine` imports it.
"""

from __future__ import annotations

from tokbench.errors import PlugError
from tokbench.measure.array_engine import ArrayEngine
from tokbench.measure.engines import EngineDescription, EngineRequest

DESCRIPTION = EngineDescription(
    kind="jax",
    what="a Llama in JAX, compiled by XLA; float32, static cache, greedy",
    modes=("compiled",),
    devices=("cpu", "cuda"),
    packages=("jax", "jaxlib", "numpy"),
    extra="jax",
    lives_apart=True,
)


def open_engine(request: EngineRequest) -> ArrayEngine:
    """Load the weights onto JAX's device.

    Raises:
        PlugError: options, a device that JAX does not have, or a model that is no plain Llama in float32.
    """
    if request.engine.options:
        fix = "leave engine.options out"
        raise PlugError(f"engine 'jax' has no options ({', '.join(request.engine.options)})", fix=fix)
    from tokbench.measure.engines.jax.llama import open_llama  # jax

    return open_llama(request)
