"""The engine `tinygrad`: a Llama written in tinygrad, its kernels made by tinygrad and compiled by clang.

It shows what the framework does with the same weights; no kernel of it is ours. `open_engine` imports it.
"""

from __future__ import annotations

import os

from tokbench.errors import PlugError
from tokbench.measure.array_engine import ArrayEngine
from tokbench.measure.engines import EngineDescription, EngineRequest

DESCRIPTION = EngineDescription(
    kind="tinygrad",
    what="a Llama in tinygrad, a captured step of kernels that it generates; float32, static cache, greedy",
    modes=("compiled",),
    devices=("cpu", "cuda"),
    packages=("tinygrad", "ziglang", "numpy"),
    extra="tinygrad",
    lives_apart=True,
)


def open_engine(request: EngineRequest) -> ArrayEngine:
    """Load the weights onto tinygrad's device.

    Raises:
        PlugError: options, a device that tinygrad does not have, or no plain Llama in float32.
    """
    if request.engine.options:
        fix = "leave engine.options out"
        raise PlugError(f"engine 'tinygrad' has no options ({', '.join(request.engine.options)})", fix=fix)
    os.environ["DEV"] = "CPU" if request.device == "cpu" else "CUDA"  # read once, at the import below
    from tokbench.measure.engines.tinygrad.llama import open_llama  # tinygrad

    return open_llama(request)
