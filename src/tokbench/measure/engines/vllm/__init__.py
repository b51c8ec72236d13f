"""vLLM without its server: the offline engine, stepped by the thread that stamps; one step is one token a request.

Modes: `default` (compiled and, on a GPU, captured as vLLM does by itself) and `eager` (`enforce_eager`). The engine
core runs in the worker's own process. A split model is dealt out by vLLM (`tensor_parallel_size`). It mostly lives in
an environment of its own (`scripts/peers vllm`).
"""

from __future__ import annotations

from tokbench.measure.engines import EngineDescription, EngineRequest, RequestEngine

DESCRIPTION = EngineDescription(
    kind="vllm",
    what="vLLM's offline engine: continuous batching and paged attention, without a server",
    modes=("default", "eager"),
    request_modes=("default", "eager"),
    parallel_modes=("default", "eager"),
    devices=("cuda", "rocm", "cpu"),
    packages=("vllm",),
    extra="vllm",
    lives_apart=True,
)


def open_engine(request: EngineRequest) -> RequestEngine:
    """Load the weights and be ready to take requests.

    Raises:
        PlugError: vLLM cannot run this model, in this type or with these options; it says why.
        TrialError: the weights or the cache do not fit.
    """
    from tokbench.measure.engines.vllm.engine import VllmEngine
    from tokbench.measure.engines.vllm.library import open_session  # vLLM: tens of seconds

    return VllmEngine(request, open_session)
