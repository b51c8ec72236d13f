"""Records of mixtures of experts and their dense twins on a scripted clock; their shapes are the catalogue's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from builders import Script
from tokbench.arithmetic import count_parameters
from tokbench.record.catalog import find_model
from tokbench.record.facts import EngineFacts, ModelFacts
from tokbench.record.observations import CellPlanned, ExpertTouches, FactsRead
from tokbench.record.spec import CellSpec, EngineSpec, ModelSpec, StaticBatchLoad, WorkloadSpec
from tokbench.record.sweep import make_cell

Option = str | int | float | bool


class MoeScript(Script):
    """A record whose cells are of shapes of the catalogue, in float32."""

    def shaped(
        self,
        name: str,
        rows: int = 1,
        options: Mapping[str, Option] | None = None,
        step_s: Sequence[float] = (0.010, 0.011, 0.012),
        touches: Sequence[Sequence[int]] = (),
        copied: Sequence[Sequence[int]] = (),
    ) -> str:
        """A cell with a repetition per entry of `step_s`; the first one holds the touches, layer by layer."""
        spec = CellSpec(
            model=ModelSpec(source=f"shape:{name}", weights="random", dtype="float32"),
            engine=EngineSpec(kind="transformers", mode="eager", options=dict(options or {})),
            workload=WorkloadSpec(prompt_tokens=16, output_tokens=5),
            load=StaticBatchLoad(static_batch=rows),
        )
        cell = make_cell(spec)
        self._specs[cell.cell_id] = spec
        if cell.group not in self._groups:
            self._groups.add(cell.group)
            self.add(_facts(cell.group, name, self.wait(0)))
        self.add(
            CellPlanned(
                cell_id=cell.cell_id, pair_key=cell.pair_key, group=cell.group, resolved=cell.resolved_json(), labels={}
            )
        )
        for index, seconds in enumerate(step_s):
            trial_id = self.trial(cell.cell_id, step_s=seconds, peak_bytes=None)
            if index == 0:
                self._touch(trial_id, rows, touches, copied)
        return cell.cell_id

    def _touch(
        self, trial_id: str, rows: int, touches: Sequence[Sequence[int]], copied: Sequence[Sequence[int]]
    ) -> None:
        end = self.events.pop()  # the trial's
        for layer, distinct in enumerate(touches):
            bytes_copied = tuple(copied[layer]) if copied else ()
            self.add(
                ExpertTouches(
                    trial_id=trial_id, layer=layer, rows=rows, distinct=tuple(distinct), copied_bytes=bytes_copied
                )
            )
        self.add(end)


def _facts(group: str, name: str, at_ns: int) -> FactsRead:
    row = find_model(name)
    counts = count_parameters(row.shape)
    return FactsRead(
        at_ns=at_ns,
        group=group,
        model=ModelFacts(
            name=name,
            source=f"shape:{name}",
            weights="random",
            dtype="float32",
            parameters=counts.total,
            weight_bytes=4 * counts.total,
            lookup_bytes=4 * counts.input_embedding,
            expert_bytes=4 * counts.experts,
            config_json=json.dumps(row.config),
        ),
        engine=EngineFacts(kind="transformers", mode="eager", versions={}, dtype="float32", kv_dtype="float32"),
        load_s=1.0,
    )
