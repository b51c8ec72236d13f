"""The link between two processes that hold one model: it waits where a real one would, and counts what crosses it.

The delay is injected: each exchange goes over the loopback, and the process then waits by the clock. No network is
slowed down, and none is measured.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import torch

from tokbench.errors import PlugError
from tokbench.measure.engines import EngineRequest
from tokbench.measure.engines.transformers import shards
from tokbench.measure.engines.transformers.options import read_options

PROCESSES = 2


def cut_request(request: EngineRequest) -> EngineRequest:
    """The request over two processes of one CPU.

    Raises:
        PlugError: a device or a mode that is not cut so.
    """
    if request.device != "cpu" or len(request.devices) > 1:
        fix = "device: cpu, or several devices without the option cut"
        raise PlugError("engine.options.cut: two processes of one CPU hold the model", fix=fix)
    if request.engine.mode != "eager":
        raise PlugError("engine.options.cut: a link that waits cannot be compiled", fix="engine.mode=eager")
    if request.model.dtype not in shards.WHOLE_TYPES:
        raise PlugError(f"engine.options.cut: weights in {request.model.dtype} are not cut", fix="model.dtype=float32")
    return dataclasses.replace(request, devices=(request.device,) * PROCESSES)


def loaded_request(request: EngineRequest) -> EngineRequest:
    """As one process loads it: of a pipeline whole, its part is taken afterwards."""
    return dataclasses.replace(request, devices=()) if cut_of(request) == "pipeline" else request


def cut_of(request: EngineRequest) -> str:
    """How the model is cut over two processes of one CPU; `none` where it lies on devices, or in one process."""
    return read_options(request.engine.options).cut


def install(model: Any, request: EngineRequest, rank: int) -> tuple[Link | None, str | None]:
    """Give a process its link, and of a pipeline its part; the link, and what each process holds.

    Raises:
        PlugError: a model that cannot be cut between layers.
    """
    cut, link = cut_of(request), Link()
    if cut == "pipeline":
        return link, cut_layers(model, rank, link)
    if cut == "tensor":
        hang_on(model, len(request.devices), link)
        return link, None
    return None, None


class Link:
    """What lies between the processes: a delay for every exchange besides its own time, none at first."""

    def __init__(self) -> None:
        self.latency_s = 0.0
        self.bytes_per_s = math.inf
        self.exchanges: list[tuple[str, int]] = []
        """Kind and bytes of each exchange since the last `forget`."""

    def set(self, latency_s: float, bytes_per_s: float) -> None:
        """Wait so long for every exchange from now on, and so long for its bytes."""
        self.latency_s, self.bytes_per_s = latency_s, bytes_per_s

    def forget(self) -> None:
        """Count exchanges anew."""
        self.exchanges = []

    def send(self, kind: str, tensor: torch.Tensor, to: int) -> None:
        """Hand a tensor over; whoever receives it waits."""
        self.exchanges.append((kind, tensor.numel() * tensor.element_size()))
        torch.distributed.send(tensor, to)

    def receive(self, kind: str, tensor: torch.Tensor, source: int) -> torch.Tensor:
        """Take a tensor of this shape and type."""
        torch.distributed.recv(tensor, source)
        self.cross(kind, tensor.numel() * tensor.element_size())
        return tensor

    def cross(self, kind: str, size_bytes: int) -> None:
        """One exchange came through: count it and wait; in a loop, since a sleep takes longer than most delays."""
        self.exchanges.append((kind, size_bytes))
        until = time.perf_counter() + self.latency_s + size_bytes / self.bytes_per_s
        while time.perf_counter() < until:
            pass


def hang_on(model: Any, ranks: int, link: Link) -> None:
    """Let every collective of a model that is split through its layers cross the link.

    Bytes that each of n processes sends: 2·(1 - 1/n) of an all-reduce's, (1 - 1/n) of an all-gather's result.
    """
    plan = model._resolve_parallel_plans(shards._plan(ranks))[0]
    modules = dict(model.named_modules())
    for name, style in plan.items():
        if name in modules and style in shards.COLLECTIVE_STYLES:
            gathers = style in ("colwise_gather_output", "colwise_rep", "embedding_colwise")
            modules[name].register_forward_hook(_crossing(link, "gather" if gathers else "reduce", ranks))


def _crossing(link: Link, kind: str, ranks: int) -> Any:
    def cross(module: Any, arguments: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple) else output
        if hasattr(tensor, "wait"):
            tensor.wait()
        share = (1 - 1 / ranks) * (1 if kind == "gather" else 2)
        link.cross(kind, math.ceil(tensor.numel() * tensor.element_size() * share))

    return cross


def cut_layers(model: Any, rank: int, link: Link) -> str:
    """Leave a process its half of the layers, and hand states and tokens over between them; what it holds, in words.

    Process 0 sends its last layer's states to process 1, which sends the next token back: both then know it.

    Raises:
        PlugError: a model that has no plain list of layers, or fewer than two.
    """
    body: Any = getattr(model, "model", None)
    layers: Any = getattr(body, "layers", None)
    if layers is None or len(layers) < PROCESSES or not hasattr(body, "norm") or not hasattr(model, "lm_head"):
        name = type(model).__name__
        raise PlugError(f"engine.options.cut: {name} has no list of layers to be cut", fix="engine.options.cut=tensor")
    half = (len(layers) + 1) // PROCESSES
    mine = layers[:half] if rank == 0 else layers[half:]
    for index, layer in enumerate(mine):
        layer.self_attn.layer_idx = index  # the cache counts the layers that this process has
    total, body.layers = len(layers), mine
    model.config.num_hidden_layers = len(mine)
    if getattr(model.config, "layer_types", None):
        kinds = model.config.layer_types
        model.config.layer_types = kinds[:half] if rank == 0 else kinds[half:]
    if rank == 0:
        mine[-1].register_forward_hook(_send_states(link))
        body.norm = torch.nn.Identity()
        model.lm_head = _TokenOf(link, int(model.config.vocab_size))
    else:
        mine[0].register_forward_pre_hook(_receive_states(link))
        model.lm_head.register_forward_hook(_send_token(link))
    return f"layers 1 to {half} in process 0, {half + 1} to {total} in process 1"


def _send_states(link: Link) -> Any:
    def send(module: Any, arguments: Any, output: Any) -> None:
        link.send("states", (output[0] if isinstance(output, tuple) else output).contiguous(), 1)

    return send


def _receive_states(link: Link) -> Any:
    def receive(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (link.receive("states", torch.empty_like(arguments[0]), 0), *arguments[1:])

    return receive


def _send_token(link: Link) -> Any:
    def send(module: Any, arguments: Any, logits: torch.Tensor) -> None:
        link.send("token", logits.argmax(-1).contiguous(), 0)

    return send


class _TokenOf(torch.nn.Module):
    """In the place of process 0's head: the token that process 1 took, as logits that have it for their largest."""

    def __init__(self, link: Link, vocabulary: int) -> None:
        super().__init__()
        self._link, self._vocabulary = link, vocabulary

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """`states`: (rows, tokens, hidden), left alone; gives (rows, tokens, vocabulary)."""
        token = self._link.receive("token", torch.empty(states.shape[:2], dtype=torch.long), 1)
        logits = torch.zeros((*token.shape, self._vocabulary))
        return logits.scatter_(-1, token[..., None], 1.0)


def exchange_alone(link: Link, rank: int, steps: int) -> None:
    """The exchanges that `link` counted, so many times, with nothing computed between them and no delay."""
    tensors = [(kind, torch.zeros(max(size // 4, 1))) for kind, size in link.exchanges]
    for _ in range(steps):
        for kind, tensor in tensors:
            if kind == "reduce":
                torch.distributed.all_reduce(tensor)
            elif kind == "gather":
                torch.distributed.all_gather([torch.empty_like(tensor) for _ in range(PROCESSES)], tensor)
            elif (kind == "states") == (rank == 0):
                torch.distributed.send(tensor, 1 - rank)
            else:
                torch.distributed.recv(tensor, 1 - rank)
