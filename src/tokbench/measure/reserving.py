"""What a request engine that holds the weights itself is told before a cell, and tells of it. Opens no window."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from tokbench.measure.engines import RequestEngine, ReservingEngine
from tokbench.measure.messages import PrepareCell
from tokbench.measure.workloads import make_prompts
from tokbench.record.observations import CellPrepared, Event, IdentityChecked
from tokbench.record.spec import ClosedLoad, LoadSpec, PoissonLoad

IDENTITY_REQUESTS = 4
"""Requests answered side by side in an identity check: each costs a generation of its own."""


def requests_at_once(load: LoadSpec) -> int:
    """Requests in flight at once, at most: the concurrency, or all that arrive on average, since none need be done."""
    match load:
        case ClosedLoad():
            return load.concurrency
        case PoissonLoad():
            return max(1, math.ceil(load.rate_per_s * load.duration_s))
        case _:
            return load.static_batch


def prepare_requests(engine: RequestEngine, command: PrepareCell, worker_id: str) -> Iterator[Event]:
    """Have room made for a cell's requests and their answers checked; nothing of servers, which size themselves."""
    if not isinstance(engine, ReservingEngine):
        return
    begun = time.monotonic()
    spec = command.spec
    requests, output_tokens = requests_at_once(spec.load), spec.workload.output_tokens
    prompts = make_prompts(spec.workload, min(requests, IDENTITY_REQUESTS), None, engine.vocabulary, command.seed)
    prepared = engine.reserve(requests, len(prompts[0]), output_tokens)
    yield CellPrepared(
        cell_id=command.cell_id,
        worker_id=worker_id,
        at_ns=time.monotonic_ns(),
        prepare_s=time.monotonic() - begun,
        compile_s=prepared.compile_s,
        cache_rows=prepared.cache_rows,
        kv_bytes_allocated=prepared.kv_bytes_allocated,
        engine=engine.facts,
    )
    if not command.check_identity:
        return
    found = engine.check_identity(prompts, min(spec.engine.check_tokens, output_tokens))
    if found is not None:
        yield IdentityChecked(cell_id=command.cell_id, **found._asdict())
