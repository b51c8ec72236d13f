"""torch.compile as this engine calls it: whole graphs of fixed shapes, kept across cells."""

from __future__ import annotations

import functools
from typing import Any

import torch

from tokbench.measure.engines.transformers.launches import InductorBackend
from tokbench.measure.engines.transformers.options import Options

RECOMPILE_LIMIT = 512
"""Every (rows, cache length) is a shape of its own; dynamo's default limit of 8 would end a sweep."""


def compiled(step: Any, options: Options, device_type: str) -> Any:
    """A step under torch.compile; dynamo keeps what it compiled by shape and backend, across cells."""
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.accumulated_recompile_limit = RECOMPILE_LIMIT
    if options.compile_backend == "inductor" and device_type == "cpu":
        return torch.compile(step, fullgraph=True, dynamic=False, backend=cpu_backend())
    tuned = options.compile_backend == "inductor" and options.coordinate_descent and device_type == "cuda"
    return torch.compile(
        step,
        fullgraph=True,
        dynamic=False,
        backend=options.compile_backend,
        options={"coordinate_descent_tuning": True} if tuned else None,
    )


@functools.cache
def cpu_backend() -> InductorBackend:
    """Inductor for a CPU; one object for all cells.

    Kernels are named in profiles, so that they can be counted; shapes are not asserted again at every call.
    """
    return InductorBackend({"cpp.enable_kernel_profile": True, "size_asserts": False, "force_pointwise_cat": True})
