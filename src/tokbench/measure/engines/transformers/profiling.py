"""Counts what one step hands to the device. Runs outside every window, and never on a GPU's own counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

GENERATED = ("graph_", "triton_")
"""How inductor's generated kernels begin in a profile: on a CPU (cpp.enable_kernel_profile), on a GPU.

Source: torch 2.11 and 2.13, _inductor/runtime/triton_heuristics.py, `CachingAutotuner.run` (kernel_name).
"""
FREE = frozenset(
    {
        "aten::alias",
        "aten::as_strided",
        "aten::chunk",
        "aten::contiguous",
        "aten::detach",
        "aten::empty",
        "aten::empty_like",
        "aten::empty_strided",
        "aten::expand",
        "aten::expand_as",
        "aten::flatten",
        "aten::lift_fresh",
        "aten::narrow",
        "aten::permute",
        "aten::reshape",
        "aten::resolve_conj",
        "aten::resolve_neg",
        "aten::select",
        "aten::slice",
        "aten::split",
        "aten::squeeze",
        "aten::t",
        "aten::to",
        "aten::transpose",
        "aten::unbind",
        "aten::unflatten",
        "aten::unsqueeze",
        "aten::view",
        "aten::_reshape_alias",
        "aten::_unsafe_view",
    }
)
"""Operators that only make another view or take memory: nothing runs."""


def count_operators(step: Callable[[], None]) -> int:
    """Operators and generated kernels that one call of `step` runs: those that call no other, views left out."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    return sum(_counts(event) for event in _leaves(profile.events()))


def _leaves(events: Iterable[Any]) -> list[Any]:
    return [event for event in events if not any(_counts(child) for child in event.cpu_children)]


def _counts(event: Any) -> bool:
    name = event.name
    return bool(name.startswith(GENERATED) or (name.startswith("aten::") and name not in FREE))
