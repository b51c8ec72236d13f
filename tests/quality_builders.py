"""Records of cells that read texts or answer questions, on a scripted clock. Reads no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from builders import Script
from scripted_facts import GPU, LLAMA_8B, LLAMA_8B_CONFIG, LLAMA_8B_PARAMETERS
from tokbench.arithmetic import bits_per_weight
from tokbench.derive.evaluate import CellResult, Missing, evaluate
from tokbench.record.facts import DeviceFacts, ModelFacts
from tokbench.record.observations import (
    CellPlanned,
    ExperimentPoint,
    FactsRead,
    TrialFinished,
    TrialStarted,
)
from tokbench.record.run import read_run
from tokbench.record.spec import (
    CellSpec,
    Dtype,
    EngineSpec,
    ExperimentSpec,
    ModelSpec,
    StaticBatchLoad,
    WorkloadSpec,
)
from tokbench.record.sweep import make_cell
from tokbench.stats import Estimate

NLL = ExperimentSpec(kind="nll", options={"tokens": 12, "chunk": 4})


class Lab:
    """A record of cells that differ in the type of their weights or in their experiment, and of what these saw."""

    def __init__(self, device: DeviceFacts = GPU) -> None:
        self.script = Script(device)
        self._trials = 0

    def cell(
        self,
        dtype: Dtype = "bfloat16",
        experiment: ExperimentSpec | Literal["none"] = NLL,
        labels: Mapping[str, str] | None = None,
        weights: Literal["pretrained", "random"] = "pretrained",
        parameters: int = LLAMA_8B_PARAMETERS,
        output_tokens: int = 4,
    ) -> str:
        spec = CellSpec(
            model=ModelSpec(source=f"hf:{LLAMA_8B}", weights=weights, dtype=dtype),
            engine=EngineSpec(kind="fake", mode="eager"),
            workload=WorkloadSpec(prompt_tokens=8, output_tokens=output_tokens),
            load=StaticBatchLoad(static_batch=1),
            experiment=experiment,
        )
        cell = make_cell(spec)
        model = ModelFacts(
            name=LLAMA_8B,
            source=spec.model.source,
            weights=weights,
            dtype=dtype,
            parameters=parameters,
            weight_bytes=int(parameters * bits_per_weight(dtype) / 8),
            config_json=json.dumps(LLAMA_8B_CONFIG),
        )
        self.script.add(
            FactsRead(at_ns=self.script.wait(0), group=cell.group, model=model),
            CellPlanned(
                cell_id=cell.cell_id,
                pair_key=cell.pair_key,
                group=cell.group,
                resolved=cell.resolved_json(),
                labels=dict(labels or {}),
            ),
        )
        return cell.cell_id

    def trial(
        self,
        cell_id: str,
        points: Sequence[tuple[Mapping[str, str | int | float], Mapping[str, int | float]]],
        steps_s: Sequence[float] = (),
    ) -> None:
        """One repetition: points of an experiment, then a prefill of a tenth of a second and decode steps."""
        trial_id = f"lab-{self._trials}"
        self._trials += 1
        kind = "nll" if points and "chunk" in points[0][0] else "answers"
        self.script.add(
            TrialStarted(
                trial_id=trial_id,
                cell_id=cell_id,
                repetition=0,
                block=0,
                order=self._trials,
                worker_id="worker-1",
                at_ns=self.script.wait(0.1),
            ),
            *(
                ExperimentPoint(
                    trial_id=trial_id,
                    window_id=f"{trial_id}/experiment/{index}",
                    experiment=kind,
                    settings=dict(settings),
                    duration_s=0.5,
                    stamped_by="host",
                    values=dict(values),
                )
                for index, (settings, values) in enumerate(points)
            ),
        )
        if steps_s:
            self.script._window(trial_id, "prefill", [0.1], 1, 1, 8)
            self.script._window(trial_id, "decode", steps_s, 1, 1, 9)
        self.script.add(
            TrialFinished(trial_id=trial_id, at_ns=self.script.wait(0.1), is_steady=True),
        )

    def read(
        self, cell_id: str, nats: list[float], order: list[int] | None = None, steps_s: Sequence[float] = ()
    ) -> None:
        """One repetition that reads chunks of three tokens, at `order` where they come in another one."""
        places = order or list(range(len(nats)))
        self.trial(
            cell_id,
            [
                ({"text": "quality", "sha256": "ab" * 32, "chunk": place}, {"nats": value, "tokens": 3})
                for place, value in zip(places, nats, strict=True)
            ],
            steps_s,
        )

    def results(self, folder: Path) -> dict[str, CellResult]:
        self.script.write(folder)
        return {cell.cell_id: cell for cell in evaluate(read_run(folder), "lab").cells}


def estimate_of(cell: CellResult, name: str = "added_nll_nats") -> Estimate:
    value = cell.metrics[name]
    assert isinstance(value, Estimate), value
    return value


def reason_of(cell: CellResult, name: str = "added_nll_nats") -> str:
    value = cell.metrics[name]
    assert isinstance(value, Missing), value
    return value.reason
