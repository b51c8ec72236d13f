"""A cell of continuous batching from the worker's side: prepared, checked, measured; refused and failed."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_engines
from tokbench.measure import messages
from tokbench.measure.messages import Done, Failed, Said
from tokbench.measure.reserving import requests_at_once
from tokbench.measure.worker import WorkerSession
from tokbench.record.observations import CellPrepared, IdentityChecked, MemoryReading, RequestTrace
from tokbench.record.spec import (
    CellSpec,
    ClosedLoad,
    LoadSpec,
    PoissonLoad,
    StaticBatchLoad,
    WorkloadSpec,
)

CLOSED = ClosedLoad(kind="closed", concurrency=3, requests=5)


def cell(load: LoadSpec, **options: Any) -> CellSpec:
    asked = tiny_engines.request(mode="continuous", options={"page_size": 8, **options})
    workload = WorkloadSpec(prompt_tokens=12, output_tokens=6)
    return CellSpec(model=asked.model, engine=asked.engine, workload=workload, load=load)


def told(spec: CellSpec, *commands: messages.Command) -> tuple[list[Any], list[Any]]:
    """What a worker says of a cell: its events, and its replies."""
    opening = messages.OpenGroup(
        group="g",
        spec=spec,
        device="cpu",
        model_name="tiny-llama",
        config_json=tiny_engines.request().config_json,
        weights_folder=None,
        revision=None,
        sha256=None,
        note=None,
        threads=1,
        seed=1,
    )
    preparing = messages.PrepareCell(cell_id="c", spec=spec, seed=1, check_identity=True)
    session = WorkerSession("w")
    said = [reply for command in (opening, preparing, *commands) for reply in session.answer(command)]
    session.close()
    return [reply.event for reply in said if isinstance(reply, Said)], [r for r in said if not isinstance(r, Said)]


def test_a_cell_of_requests_is_prepared_checked_and_measured() -> None:
    warming = messages.WarmUp(trial_id="t", tolerance=10.0, cap_s=30.0)
    events, replies = told(cell(CLOSED), warming, messages.RunTrial(trial_id="t", keep_tokens=False, seed=1))
    assert [Done(), Done(), Done(is_steady=True), Done()] == replies
    (prepared,) = [event for event in events if isinstance(event, CellPrepared)]
    assert prepared.engine is not None and prepared.engine.attention_kernel == "paged|sdpa"
    assert "cache of 11 pages of 8 tokens" in "; ".join(prepared.engine.notes)  # 3 requests of 3 pages, 15 % kept free
    assert prepared.kv_bytes_allocated == (11 + 2) * 8 * 2 * 2 * 2 * 16 * 4  # 2 spare pages; layers, K and V, heads
    (checked,) = [event for event in events if isinstance(event, IdentityChecked)]
    assert ("c", 6, None) == (checked.cell_id, checked.tokens_compared, checked.first_divergence)
    found = [event for event in events if isinstance(event, RequestTrace)]
    assert [6] * 5 == [sum(trace.chunk_tokens) for trace in found]
    assert {"t"} == {event.trial_id for event in events if isinstance(event, MemoryReading)}


def test_a_static_batch_is_refused() -> None:
    _, replies = told(cell(StaticBatchLoad()))
    assert isinstance(replies[-1], Failed) and replies[-1].is_refusal
    assert "answers requests, not static batches" in replies[-1].text


def test_a_cache_that_does_not_fit_fails_the_cell_and_tells_the_peak() -> None:
    events, replies = told(cell(CLOSED, num_blocks=10**9))
    assert isinstance(replies[-1], Failed) and "oom" == replies[-1].cause
    assert ("c", None, "rss_peak") in [
        (e.cell_id, e.trial_id, e.source) for e in events if isinstance(e, MemoryReading)
    ]


@pytest.mark.parametrize(
    ("load", "requests"),
    [
        (CLOSED, 3),
        (PoissonLoad(kind="poisson", rate_per_s=0.7, duration_s=15), 11),
        (PoissonLoad(kind="poisson", rate_per_s=0.1, duration_s=1), 1),
    ],
)
def test_room_is_made_for_all_that_may_be_in_flight(load: LoadSpec, requests: int) -> None:
    assert requests == requests_at_once(load)
