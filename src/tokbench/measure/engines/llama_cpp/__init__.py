"""llama.cpp's server inside this process, by the package xllamacpp: GGUF files as they are, on a CPU or a GPU.

It answers requests (continuous batching); it has no static batches. The heavy library is imported in `open_engine`.
"""

from __future__ import annotations

from tokbench.measure.engines import EngineDescription, EngineRequest, RequestEngine

DESCRIPTION = EngineDescription(
    kind="llama_cpp",
    what="llama.cpp's server in this process (xllamacpp): GGUF files in their own quantisation, continuous batching",
    modes=("default",),
    request_modes=("default",),
    devices=("cuda", "rocm", "mps", "cpu"),
    packages=("xllamacpp", "gguf"),
    extra="llama-cpp",
    lives_apart=True,
)


def open_engine(request: EngineRequest) -> RequestEngine:
    """Read the file's header and load its weights.

    Raises:
        PlugError: what was asked cannot be had of llama.cpp, of this build of it or of this file.
    """
    from tokbench.measure.engines.llama_cpp.engine import LlamaCppEngine

    return LlamaCppEngine(request)
