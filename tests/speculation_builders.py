"""Records of cells with drafts on a scripted clock: every round is written out, so that a test can tell it by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from builders import Script
from tokbench.record.observations import (
    CellPlanned,
    OutputTokens,
    PromptsStaged,
    SpeculationRounds,
    StepTrace,
    TrialFinished,
    TrialStarted,
    WindowClosed,
    WindowOpened,
)
from tokbench.record.spec import CellSpec, ExperimentSpec, ModelSpec, Option, SpeculationSpec, StaticBatchLoad
from tokbench.record.sweep import make_cell

ROUND_S = {"draft_s": 0.004, "verify_s": 0.012, "other_s": 0.001}
"""A round of 17 ms: four drafts of 1 ms, a verifying pass of 12 ms, 1 ms of all else; a plain step takes 10 ms."""


class DraftScript(Script):
    """A record in the making, with cells that draft."""

    def plan(
        self,
        method: str | None = None,
        gamma: int = 4,
        *,
        static_batch: int = 1,
        output_tokens: int = 12,
        accept: Literal["lossless", "top3"] = "lossless",
        task: str | None = None,
        temperature: float = 0.0,
        draft: ModelSpec | None = None,
        model: ModelSpec | None = None,
        experiment: str | None = None,
        weights: Literal["pretrained", "random"] = "pretrained",
        note: str | None = None,
        options: Mapping[str, Option] | None = None,
        prompt_tokens: int = 100,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Plan a cell, plain where no method is named; gives its id."""
        cell_id = self.cell(
            static_batch=static_batch, output_tokens=output_tokens, weights=weights, note=note, labels=labels
        )
        planned, spec = self.events[-1], self._specs[cell_id]
        assert isinstance(planned, CellPlanned)
        speculation: Literal["none"] | SpeculationSpec = "none"
        if method is not None:
            speculation = SpeculationSpec(
                method=method, gamma=gamma, accept=accept, draft=draft, options=dict(options or {})
            )
        work = {"temperature": temperature, "prompt_tokens": prompt_tokens}
        work |= {"kind": "task", "task": task} if task else {}
        changed = {
            "speculation": speculation,
            "workload": spec.workload.model_copy(update=work),
            "experiment": "none" if experiment is None else ExperimentSpec(kind=experiment),
            "model": spec.model if model is None else model,
        }
        made = make_cell(CellSpec.model_validate(spec.model_copy(update=changed).model_dump()))
        self._specs[made.cell_id] = made.spec
        named = {"cell_id": made.cell_id, "pair_key": made.pair_key, "resolved": made.resolved_json()}
        self.events[-1] = planned.model_copy(update=named)
        return made.cell_id

    def rounds(
        self,
        cell_id: str,
        *accepted: Sequence[int],
        drafted: Sequence[Sequence[int]] | None = None,
        times: Mapping[str, float] = ROUND_S,
        worker: str = "worker-1",
        block: int | None = None,
        prompts: Sequence[str] = (),
        output: Sequence[Sequence[int]] = (),
    ) -> str:
        """One repetition of which each row accepts so many drafts in each round; the last round is cut at the end."""
        spec = self._specs[cell_id]
        assert spec.speculation != "none" and isinstance(spec.load, StaticBatchLoad)
        trial_id = self._start(cell_id, worker)
        self._place(block)
        if prompts:
            staged = PromptsStaged(trial_id=trial_id, task="edit", sha256="cd" * 32, prompt_ids=tuple(prompts))
            self.add(staged)
        self._window(trial_id, "prefill", [0.5], 1, len(accepted), 100)
        emitted = [_emit(row, spec.workload.output_tokens - 1) for row in accepted]
        self._decode(trial_id, emitted, sum(times.values()))
        for row, counts in enumerate(accepted):
            own = len(counts)
            wanted = (spec.speculation.gamma,) * own if drafted is None else tuple(drafted[row])
            self.add(
                SpeculationRounds(
                    trial_id=trial_id,
                    row=row,
                    drafted=wanted,
                    accepted=tuple(counts),
                    emitted=tuple(emitted[row]),
                    position=tuple(100 + sum(emitted[row][:place]) for place in range(own)),
                    **{name: (seconds,) * own for name, seconds in times.items()},
                )
            )
        if output:
            self.add(OutputTokens(trial_id=trial_id, token_ids=tuple(tuple(row) for row in output)))
        self.add(TrialFinished(trial_id=trial_id, at_ns=self.wait(0.001), is_steady=True))
        return trial_id

    def plain(self, cell_id: str, step_s: float = 0.01, worker: str = "worker-1", block: int | None = None) -> str:
        """One repetition without drafts."""
        trial_id = self.trial(cell_id, step_s=step_s, worker=worker, peak_bytes=None)
        self._place(block)
        return trial_id

    def _decode(self, trial_id: str, emitted: Sequence[Sequence[int]], round_s: float) -> None:
        most = max(map(len, emitted))
        by_row = tuple(tuple(row[n] if n < len(row) else 0 for row in emitted) for n in range(most))
        opened = WindowOpened(trial_id=trial_id, window_id=f"{trial_id}-decode", kind="decode", at_ns=self.wait(0))
        start = self.now_ns
        self.add(
            opened,
            StepTrace(
                trial_id=trial_id,
                window_id=f"{trial_id}-decode",
                start_at_ns=start,
                step_at_ns=tuple(self.wait(round_s) for _ in range(most)),
                tokens_per_row=tuple(map(min, by_row)),
                rows=len(emitted),
                context_tokens=100,
                tokens_by_row=by_row,
                stamped_by="script",
                clock_error_s=None,
            ),
            WindowClosed(trial_id=trial_id, window_id=f"{trial_id}-decode", at_ns=self.now_ns),
        )

    def _place(self, block: int | None) -> None:
        """Move the trial begun last into a block."""
        if block is not None:
            index = max(number for number, event in enumerate(self.events) if isinstance(event, TrialStarted))
            self.events[index] = self.events[index].model_copy(update={"block": block})


def _emit(accepted: Sequence[int], wanted: int) -> list[int]:
    """Tokens of each round: accepted + 1, the last cut at the row's end."""
    left, emitted = wanted, []
    for count in accepted:
        emitted.append(min(count + 1, left))
        left -= emitted[-1]
    return emitted
