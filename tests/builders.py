"""Makes records on a scripted clock, so that every number of a test can be told by hand. Reads no real clock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from scripted_facts import GPU, HOST, LLAMA_8B, LLAMA_8B_CONFIG, LLAMA_8B_PARAMETERS
from tokbench.record.facts import CeilingFacts, DeviceFacts, EngineFacts, ModelFacts, Weights
from tokbench.record.observations import (
    SCHEMA_VERSION,
    BlockStarted,
    CellPlanned,
    CellPrepared,
    CellSkipped,
    Event,
    FactsRead,
    FailureCause,
    IdentityChecked,
    LoadSample,
    MemoryReading,
    MeterAbsent,
    RequestTrace,
    RunEnded,
    RunStarted,
    StepTrace,
    TrialFailed,
    TrialFinished,
    TrialStarted,
    WindowClosed,
    WindowKind,
    WindowOpened,
)
from tokbench.record.run import Run, read_run
from tokbench.record.spec import (
    CellSpec,
    ClosedLoad,
    EngineSpec,
    ModelSpec,
    StaticBatchLoad,
    StopSpec,
    WorkloadSpec,
)
from tokbench.record.store import EVENTS_FILE
from tokbench.record.sweep import make_cell

EndReason = Literal["complete", "budget", "interrupted", "terminated"]


class Script:
    """A record in the making: every call appends events and moves the scripted clock."""

    def __init__(
        self,
        device: DeviceFacts | None = GPU,
        ceiling: CeilingFacts | None = None,
        seed: int = 7,
        command: tuple[str, ...] = ("tokbench", "run", "script.yaml"),
        stop: StopSpec | None = None,
    ) -> None:
        self.now_ns = 1_000_000_000
        self.events: list[Event] = [
            RunStarted(
                schema_version=SCHEMA_VERSION,
                tokbench_version="0.1.0",
                config_sha256="c0ffee" * 10 + "c0ff",
                seed=seed,
                at_ns=self.now_ns,
                utc="2026-11-21T12:00:00Z",
                command=command,
                stop=stop,
            ),
            FactsRead(at_ns=self.now_ns, host=HOST, device=device, device_choice="the only one", ceilings=ceiling),
        ]
        self._device = device
        self._specs: dict[str, CellSpec] = {}
        self._groups: set[str] = set()
        self._trials = 0

    def wait(self, seconds: float) -> int:
        """Move the clock and tell its reading."""
        self.now_ns += round(seconds * 1e9)
        return self.now_ns

    def add(self, *events: Event) -> None:
        """Append events as they are."""
        self.events += events

    def cell(
        self,
        model: str = LLAMA_8B,
        weights: Literal["pretrained", "random"] = "pretrained",
        mode: str = "eager",
        static_batch: int = 1,
        concurrency: int | None = None,
        prompt_tokens: int | None = 100,
        output_tokens: int = 5,
        note: str | None = None,
        config: Mapping[str, object] | None = LLAMA_8B_CONFIG,
        parameters: int | None = LLAMA_8B_PARAMETERS,
        labels: Mapping[str, str] | None = None,
        layers: int | None = None,
        attention: str | None = None,
    ) -> str:
        """Plan a cell, with the facts of its group where they are new; gives its id."""
        load = (
            ClosedLoad(kind="closed", concurrency=concurrency, requests=4)
            if concurrency is not None
            else StaticBatchLoad(static_batch=static_batch)
        )
        spec = CellSpec(
            model=ModelSpec(source=f"hf:{model}", weights=weights, layers=layers),
            engine=EngineSpec(kind="fake", mode=mode, attention=attention),
            hardware=self._device.name if self._device else None,
            workload=WorkloadSpec(prompt_tokens=prompt_tokens, output_tokens=output_tokens),
            load=load,
            labels=dict(labels or {}),
        )
        cell = make_cell(spec)
        self._specs[cell.cell_id] = spec
        if config is not None and layers is not None:
            config = {**config, "num_hidden_layers": layers}
        if cell.group not in self._groups:
            self._groups.add(cell.group)
            self._read_group(cell.group, spec, model, weights, note, config, parameters)
        self.add(
            CellPlanned(
                cell_id=cell.cell_id,
                pair_key=cell.pair_key,
                group=cell.group,
                resolved=cell.resolved_json(),
                labels=dict(labels or {}),
            ),
        )
        return cell.cell_id

    def _read_group(
        self,
        group: str,
        spec: CellSpec,
        model: str,
        weights: Weights,
        note: str | None,
        config: Mapping[str, object] | None,
        parameters: int | None,
    ) -> None:
        self.add(
            FactsRead(
                at_ns=self.wait(0),
                group=group,
                model=ModelFacts(
                    name=model,
                    source=spec.model.source,
                    weights=weights,
                    dtype="bfloat16",
                    parameters=parameters,
                    weight_bytes=None if parameters is None else 2 * parameters,
                    sha256="ab" * 32,
                    note=note,
                    config_json=None if config is None else json.dumps(config),
                ),
                engine=EngineFacts(
                    kind="fake",
                    mode=spec.engine.mode,
                    versions={"torch": "2.13.0", "transformers": "5.23.0"},
                    dtype="bfloat16",
                    attention_kernel="sdpa",
                    stamped_by="script",
                    threads=2,
                    environment={"OMP_WAIT_POLICY": "passive"},
                ),
                load_s=12.5,
            )
        )

    def prepare(self, cell_id: str, cache_rows: int | None = 128, kv_bytes: int | None = None) -> None:
        """Allocation and compilation of a cell."""
        self.add(
            CellPrepared(
                cell_id=cell_id,
                worker_id="worker-1",
                at_ns=self.wait(1.0),
                prepare_s=1.0,
                compile_s=0.5,
                cache_rows=cache_rows,
                kv_bytes_allocated=kv_bytes,
            )
        )

    def trial(
        self,
        cell_id: str,
        step_s: float | Sequence[float] = 0.01,
        prefill_s: float = 0.5,
        worker: str = "worker-1",
        is_steady: bool | None = True,
        tokens_per_stamp: int = 1,
        peak_bytes: int | None = 17_000_000_000,
    ) -> str:
        """One repetition of a static batch that comes to its end."""
        spec = self._specs[cell_id]
        assert isinstance(spec.load, StaticBatchLoad)
        trial_id = self._start(cell_id, worker)
        stamps = (spec.workload.output_tokens - 1) // tokens_per_stamp
        steps = [step_s] * stamps if isinstance(step_s, int | float) else list(step_s)
        prompt = spec.workload.prompt_tokens or 0
        self._window(trial_id, "prefill", [prefill_s], 1, spec.load.static_batch, prompt)
        self._window(trial_id, "decode", steps, tokens_per_stamp, spec.load.static_batch, prompt + 1)
        if peak_bytes is not None:
            self.add(
                MemoryReading(
                    trial_id=trial_id,
                    cell_id=cell_id,
                    at_ns=self.now_ns,
                    source="allocator_peak",
                    value_bytes=peak_bytes,
                )
            )
        self.add(TrialFinished(trial_id=trial_id, at_ns=self.wait(0.001), is_steady=is_steady))
        return trial_id

    def block(self, block: int, sentinel: str | None = None, kept: str | None = None) -> None:
        """A pass over all cells begins; `kept` says why no fresh processes were started."""
        self.add(
            BlockStarted(
                block=block,
                at_ns=self.wait(0),
                seed=7,
                order=tuple(self._specs),
                is_fresh=kept is None,
                reason=kept,
                sentinel=sentinel,
            )
        )

    def sentinel(self, cell_id: str, block: int, step_s: float = 0.01, worker: str = "worker-1") -> None:
        """The sentinel opens or closes a block; what it does is no repetition."""
        begun = len(self.events)
        self.trial(cell_id, step_s=step_s, worker=worker, peak_bytes=None)
        started = self.events[begun]
        assert isinstance(started, TrialStarted)
        self.events[begun] = started.model_copy(update={"purpose": "sentinel", "block": block})

    def _start(self, cell_id: str, worker: str = "worker-1") -> str:
        earlier = sum(
            1
            for event in self.events
            if isinstance(event, TrialStarted) and (event.cell_id, event.purpose) == (cell_id, "measure")
        )
        trial_id = f"t{self._trials}"
        self.add(
            TrialStarted(
                trial_id=trial_id,
                cell_id=cell_id,
                repetition=earlier,
                block=earlier,
                order=self._trials,
                worker_id=worker,
                at_ns=self.wait(0.001),
            )
        )
        self._trials += 1
        return trial_id

    def _window(
        self, trial_id: str, kind: WindowKind, steps: Sequence[float], tokens: int, rows: int, context: int
    ) -> None:
        window_id = f"{trial_id}-{kind}"
        self.add(WindowOpened(trial_id=trial_id, window_id=window_id, kind=kind, at_ns=self.wait(0)))
        start = self.now_ns
        stamps = tuple(self.wait(seconds) for seconds in steps)
        self.add(
            StepTrace(
                trial_id=trial_id,
                window_id=window_id,
                start_at_ns=start,
                step_at_ns=stamps,
                tokens_per_row=(tokens,) * len(stamps),
                rows=rows,
                context_tokens=context,
                stamped_by="script",
                clock_error_s=None,
            ),
            WindowClosed(trial_id=trial_id, window_id=window_id, at_ns=self.now_ns),
        )

    def requests(self, cell_id: str, chunks: Sequence[tuple[float, Sequence[float], Sequence[int]]]) -> str:
        """One repetition of requests: for each the wait before sending, chunk times from sending, tokens a chunk."""
        trial_id = self._start(cell_id)
        origin = self.now_ns
        for index, (queue_s, times_s, tokens) in enumerate(chunks):
            sent = origin + round(queue_s * 1e9)
            self.add(
                RequestTrace(
                    trial_id=trial_id,
                    request_id=f"r{index}",
                    scheduled_at_ns=origin,
                    sent_at_ns=sent,
                    chunk_at_ns=tuple(sent + round(seconds * 1e9) for seconds in times_s),
                    chunk_tokens=tuple(tokens),
                    prompt_tokens=100,
                    tokens_counted_by="script",
                    stamped_by="script",
                    finish_reason="length",
                )
            )
        self.add(TrialFinished(trial_id=trial_id, at_ns=self.wait(10.0), is_steady=None))
        return trial_id

    def fail(self, cell_id: str, cause: FailureCause, message: str) -> None:
        """One repetition that gave no result."""
        trial_id = self._start(cell_id)
        self.add(TrialFailed(trial_id=trial_id, cell_id=cell_id, at_ns=self.wait(0.1), cause=cause, message=message))

    def skip(self, cell_id: str, cause: FailureCause, reason: str) -> None:
        """A cell that was not run."""
        self.add(CellSkipped(cell_id=cell_id, cause=cause, reason=reason, at_ns=self.wait(0)))

    def identity(self, cell_id: str, first_divergence: int | None = None, top2_gap: float | None = None) -> None:
        """A check of the tokens against the library's own generation."""
        self.add(
            IdentityChecked(
                cell_id=cell_id,
                reference="transformers generate, greedy",
                tokens_compared=32,
                first_divergence=first_divergence,
                top2_gap=top2_gap,
            )
        )

    def load_sample(
        self,
        machine_cpu_s: float,
        worker_cpu_s: float = 0.0,
        throttle: tuple[str, ...] = (),
        sm_clock_mhz: int | None = None,
    ) -> None:
        """The machine's state at this moment."""
        self.add(
            LoadSample(
                at_ns=self.now_ns,
                machine_cpu_s=machine_cpu_s,
                worker_cpu_s=worker_cpu_s,
                parent_cpu_s=0.0,
                throttle_reasons=throttle,
                sm_clock_mhz=sm_clock_mhz,
            )
        )

    def meter_absent(self, meter: str, reason: str, remedy: str | None = None) -> None:
        """A meter that could not be read."""
        self.add(MeterAbsent(meter=meter, reason=reason, remedy=remedy))

    def end(self, reason: EndReason = "complete") -> None:
        """The run comes to its end."""
        self.add(RunEnded(reason=reason, at_ns=self.wait(1.0)))

    def write(self, folder: Path) -> Path:
        """Write the record and give its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [event.model_dump_json() for event in self.events]
        (folder / EVENTS_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "config.yaml").write_text("name: script\nmodel:\n  source: hf:somewhere/model\n", encoding="utf-8")
        return folder

    def run(self, folder: Path) -> Run:
        """Write the record and read it back."""
        return read_run(self.write(folder))
