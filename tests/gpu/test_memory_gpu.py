"""Memory that really runs out on a GPU: the peak until then is in the record, and the worker goes on."""

from __future__ import annotations

import json

import pytest

from tokbench.measure.messages import Command, Done, Failed, OpenGroup, PrepareCell, RunTrial, Said
from tokbench.measure.worker import WorkerSession
from tokbench.record.catalog import find_model
from tokbench.record.observations import Event, MemoryReading
from tokbench.record.spec import CellSpec, EngineSpec, ModelSpec, StaticBatchLoad, WorkloadSpec

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
LIMIT_BYTES = 1 << 30


def cell(rows: int, output_tokens: int) -> CellSpec:
    return CellSpec(
        model=ModelSpec(source="shape:depth-floor", weights="random"),
        engine=EngineSpec(kind="transformers", mode="eager"),
        workload=WorkloadSpec(prompt_tokens=64, output_tokens=output_tokens),
        load=StaticBatchLoad(static_batch=rows),
    )


def tell(session: WorkerSession, command: Command) -> tuple[list[Event], Done | Failed]:
    *said, last = session.answer(command)
    assert isinstance(last, Done | Failed)
    return [reply.event for reply in said if isinstance(reply, Said)], last


def preparing(spec: CellSpec) -> PrepareCell:
    return PrepareCell(cell_id="c", spec=spec, seed=1, check_identity=False)


def test_the_peak_until_memory_ran_out_is_told_and_a_smaller_cell_runs() -> None:
    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, LIMIT_BYTES / total))
    session = WorkerSession("w")
    try:
        config = json.dumps(find_model("depth-floor").config)
        spec = cell(rows=4096, output_tokens=512)  # a cache of several times the limit
        opened = OpenGroup(
            group="g",
            spec=spec,
            device="cuda:0",
            model_name="depth-floor",
            config_json=config,
            weights_folder=None,
            revision=None,
            sha256=None,
            note=None,
            threads=1,
            seed=1,
        )
        assert isinstance(tell(session, opened)[1], Done)
        events, last = tell(session, preparing(spec))
        if isinstance(last, Done):  # an eager cache grows as it goes
            events, last = tell(session, RunTrial(trial_id="t", keep_tokens=False, seed=1))
        assert isinstance(last, Failed) and "oom" == last.cause
        peaks = {event.source: event.value_bytes for event in events if isinstance(event, MemoryReading)}
        assert 30 << 20 < peaks["allocator_peak"] <= LIMIT_BYTES < free
        small = cell(rows=1, output_tokens=8)
        assert isinstance(tell(session, preparing(small))[1], Done)
        assert isinstance(tell(session, RunTrial(trial_id="u", keep_tokens=False, seed=1))[1], Done)
    finally:
        session.close()
        torch.cuda.set_per_process_memory_fraction(1.0)
