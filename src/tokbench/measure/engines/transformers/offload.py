"""Experts in the host's memory: a share of each layer's lies on the device, the rest is copied there when selected.

Of a GPU the host's memory is pinned; of a CPU it is a memory-mapped file, and "on the device" is a budget of ordinary
memory. A step asks which experts were selected and so waits for the device: mode eager alone. It computes with the same
kernel as without offloading.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Any

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.transformers.experts_drawn import list_experts
from tokbench.measure.engines.transformers.options import Options
from tokbench.units import BYTES, format_value


class HostWeight(torch.nn.Parameter):
    """A weight in the host's memory or in a mapped file. It is counted as the model's, and stays where it lies."""


class OffloadedExperts(torch.nn.Module):
    """Stands where a layer's experts stood, which now hold the resident ones alone; the least recently used give way.

    `slots`: the module of before, with one place for each resident expert.
    """

    def __init__(self, slots: torch.nn.Module, resident: int) -> None:
        super().__init__()
        self.num_experts = int(slots.num_experts)
        self._names = [name for name, _ in slots.named_parameters(recurse=False)]
        self.expert_bytes = 0
        device = next(slots.parameters(recurse=False)).device
        for name in self._names:
            whole = getattr(slots, name)
            self.expert_bytes += whole[0].numel() * whole.element_size()
            delattr(slots, name)
            setattr(self, name, HostWeight(_to_host(whole.data, device), requires_grad=False))
            setattr(slots, name, torch.empty((resident, *whole.shape[1:]), dtype=whole.dtype, device=device))
        slots.num_experts = resident
        self.slots = slots
        self._place_of = torch.zeros(self.num_experts, dtype=torch.long, device=device)
        self._held: OrderedDict[int, int] = OrderedDict()
        self._free = list(range(resident))
        self.copied_bytes = 0
        for expert in range(resident):
            self._bring(expert)

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """`hidden`: (tokens, d); `chosen`, `weights`: (tokens, k)."""
        self.copied_bytes = 0
        hit = chosen.unique().tolist()
        waves = list(_waves(hit, self._held, self.slots.num_experts))
        if len(waves) == 1:
            self._bring_all(waves[0])
            return self.slots(hidden, self._place_of[chosen], weights)
        total = torch.zeros_like(hidden)
        for wave in waves:
            self._bring_all(wave)
            is_here = torch.isin(chosen, torch.tensor(wave, device=chosen.device))
            token, which = is_here.nonzero(as_tuple=True)
            places, shares = self._place_of[chosen[token, which]], weights[token, which]
            total.index_add_(0, token, self.slots(hidden[token], places[:, None], shares[:, None]))
        return total

    def _bring_all(self, wave: Collection[int]) -> None:
        for expert in wave:
            if expert in self._held:
                self._held.move_to_end(expert)
        for expert in wave:
            if expert not in self._held:
                self._bring(expert)
                self.copied_bytes += self.expert_bytes

    def _bring(self, expert: int) -> None:
        """Copy an expert to the device, in the place of the one that was not used for the longest time."""
        place = self._free.pop() if self._free else self._held.popitem(last=False)[1]
        for name in self._names:
            getattr(self.slots, name)[place].copy_(getattr(self, name)[expert], non_blocking=True)
        self._held[expert] = place
        self._place_of[expert] = place


def _waves(hit: list[int], held: Collection[int], places: int) -> Iterator[list[int]]:
    """The selected experts in as many groups as have to be worked on one after the other; those that are here first."""
    wanted = set(hit)
    order = [expert for expert in held if expert in wanted] + [expert for expert in hit if expert not in held]
    yield from (order[start : start + places] for start in range(0, len(order), places))


def _to_host(whole: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy in pinned memory for a GPU; for a CPU in a file without a name, mapped into memory.

    Raises:
        PlugError: the disk has no room for it: a page that cannot be written would end the process without a word.
    """
    if device.type != "cpu":
        return torch.empty(whole.shape, dtype=whole.dtype, pin_memory=True).copy_(whole)  # no second copy on the way
    with tempfile.NamedTemporaryFile(prefix="tokbench-experts-") as file:
        size = whole.numel() * whole.element_size()
        file.truncate(size)
        try:
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            needed = f"{format_value(size, BYTES)} in {tempfile.gettempdir()}: {error.strerror}"
            message = f"engine.options.resident_experts: a layer's experts need {needed}"
            raise PlugError(message, fix="name a folder with room in TMPDIR, or leave more experts resident") from None
        mapped = torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8)
    stored = mapped.view(whole.dtype).view(whole.shape)
    return stored.copy_(whole)


@torch.no_grad()
def offload_experts(model: Any, options: Options, request: EngineRequest) -> str | None:
    """Leave a share of every layer's experts on the device; what a reader must know of it, None where all stay.

    At least one expert has a place, in which the selected ones are worked on by turns.

    Raises:
        PlugError: the model has no routed experts that can be moved, or the mode cannot wait for the device.
    """
    share = options.resident_experts
    if share == 1.0:
        return None
    found = list_experts(model)
    if not found:
        raise PlugError(
            f"engine.options.resident_experts: {share:g} needs a model with routed experts, and this one is dense",
            fix="leave the option out, or take a mixture of experts, e.g. model.source=shape:cpu-moe",
        )
    if len(request.devices) > 1 or options.cut != "none":
        raise PlugError("engine.options.resident_experts: not of a model that is split", fix="one device, cut: none")
    if request.engine.mode != "eager":
        raise PlugError(
            f"engine.options.resident_experts: mode {request.engine.mode!r} cannot wait for experts to be copied",
            fix="engine.mode=eager",
        )
    count = int(found[0][1].num_experts)
    places = max(1, math.floor(share * count + 0.5))
    for name, experts in found:
        if any(weight.shape[0] != experts.num_experts for weight in experts.parameters(recurse=False)):
            raise PlugError(f"engine.options.resident_experts: {name} does not hold its weights expert by expert")
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, OffloadedExperts(experts, places))
    where = "pinned host memory"
    if request.device == "cpu":
        where = "a memory-mapped file, whose pages the system may keep in memory: copies then touch no disk"
    return f"experts resident: {places} of {count} in each layer, by last use; the rest in {where}"
