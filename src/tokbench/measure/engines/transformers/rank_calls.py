"""What the ranks of a split model say to one another, and how a process takes its seat among them. Runs no model."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import sys
from typing import TYPE_CHECKING, Literal, NamedTuple

from tokbench.measure.engines import CellWork, EngineRequest, MemoryNow
from tokbench.measure.messages import Failed
from tokbench.record.facts import ModelFacts

if TYPE_CHECKING:
    from torch.distributed import TCPStore

HOST = "127.0.0.1"
COLLECTIVE_LIMIT_S = 7200.0
"""When a collective gives up by itself: beyond the runner's own limits, which end the whole group sooner. Compiling and
loading make ranks wait for one another for minutes. Source: transformers 5.23, distributed/utils.py, 2 h of loading."""


CallName = (
    Literal["prepare", "prefill", "decode", "rewind", "identity", "repeat", "tokens", "memory"]
    | Literal["link", "exchange", "close"]
)


class Call(NamedTuple):
    """What every rank does next."""

    name: CallName
    work: CellWork | None = None
    number: int = 0
    """Steps, tokens or a position, as the call has it."""
    delay: tuple[float, float] = (0.0, float("inf"))
    """Of the link between two processes: seconds per exchange, bytes per second."""


class Answer(NamedTuple):
    """What one rank says when a call is done."""

    rank: int
    failure: Failed | None = None
    is_dead: bool = False
    model_facts: ModelFacts | None = None
    kv_bytes: int | None = None
    graphs_compiled: int | None = None
    memory: tuple[MemoryNow, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()


class Seat(NamedTuple):
    """One rank's place in the group."""

    request: EngineRequest
    rank: int
    port: int
    leader_pid: int


def backend_of(device: str) -> str:
    """The library that moves data between ranks: nccl (RCCL under ROCm) on GPUs, gloo between CPU processes."""
    return "nccl" if device.startswith("cuda") else "gloo"


def rank_environment(device: str, rank: int, ranks: int, port: int) -> dict[str, str]:
    """What torchrun would set. transformers binds a GPU process to the device numbered LOCAL_RANK.

    A group of CPU processes is shown no GPU: transformers would place the model there. gloo is told the loopback, since
    it otherwise looks the host's own name up. Source: transformers 5.23, distributed/utils.py, `_bind_local_device`.
    """
    index = device.partition(":")[2]
    found = {
        "RANK": str(rank),
        "LOCAL_RANK": index or str(rank),
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
    }
    if backend_of(device) == "gloo":
        found |= {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
        if sys.platform == "linux":
            found["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return found


def own_request(request: EngineRequest, rank: int) -> EngineRequest:
    """The request as one rank carries it out: on its own device, with its share of the CPU's threads."""
    ranks = len(request.devices)
    threads = request.threads if backend_of(request.device) == "nccl" else max(request.threads // ranks, 1)
    return dataclasses.replace(request, device=request.devices[rank], threads=threads)


def join(request: EngineRequest, rank: int, store: TCPStore) -> None:
    """Enter the process group; returns when all ranks are there."""
    import torch

    device = torch.device(request.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        backend_of(request.device),
        store=store,
        rank=rank,
        world_size=len(request.devices),
        device_id=device if device.type == "cuda" else None,
        timeout=datetime.timedelta(seconds=COLLECTIVE_LIMIT_S),
    )


def open_store(ranks: int, port: int, *, is_leader: bool) -> TCPStore:
    """Where the ranks find one another; the leader's port 0 means a free one."""
    import torch

    limit = datetime.timedelta(seconds=COLLECTIVE_LIMIT_S)
    return torch.distributed.TCPStore(HOST, port, ranks, is_leader, limit, wait_for_workers=False)


def leave() -> None:
    """Leave the process group, without waiting for ranks that may be gone; a broken one has nothing to leave."""
    import torch

    with contextlib.suppress(RuntimeError, ValueError):
        if not torch.distributed.is_initialized():
            return
        if torch.distributed.get_backend() == "nccl":
            torch.distributed.distributed_c10d._abort_process_group()
        else:
            torch.distributed.destroy_process_group()
