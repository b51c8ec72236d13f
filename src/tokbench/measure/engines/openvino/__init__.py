"""The engine `openvino`: OpenVINO GenAI on a CPU, continuous batching stepped from here, weights converted once.

The library is imported in `open_engine`. Why it is done so: docs/design/openvino.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokbench.measure.engines import EngineDescription, EngineRequest

if TYPE_CHECKING:
    from tokbench.measure.engines.openvino.engine import OpenVinoEngine

DESCRIPTION = EngineDescription(
    kind="openvino",
    what="OpenVINO GenAI, continuous batching on a CPU; safetensors converted by optimum-intel",
    modes=("default",),
    request_modes=("default",),
    devices=("cpu",),
    packages=("openvino-genai", "optimum-intel"),
    extra="openvino",
    lives_apart=True,
)


def open_engine(request: EngineRequest) -> OpenVinoEngine:
    """Convert the weights where that was not done before, and load them.

    Raises:
        PlugError: a device, type or option that this engine does not have, or weights that cannot be converted.
    """
    from tokbench.measure.engines.openvino.engine import OpenVinoEngine  # openvino

    return OpenVinoEngine(request)
