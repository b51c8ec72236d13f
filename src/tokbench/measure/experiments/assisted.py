"""Our rounds of drafting beside transformers' own assisted generation, on the same prompts: counts, tokens, time.

Two points for every row, one for each implementation. It compares nothing but how far the tokens are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import CellWork, DraftModel, StepEngine, TorchEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec, SpeculationSpec

DESCRIPTION = (
    "our drafting beside transformers' assisted generation on the same prompts, row by row (draft_model, early_exit, "
    "prompt_lookup); no options"
)
METHODS = ("draft_model", "early_exit", "prompt_lookup")
"""Those that transformers has too."""


class _Rounds(NamedTuple):
    """What one implementation did for one row."""

    tokens: Sequence[int]
    drafted: Sequence[int]
    accepted: Sequence[int]
    duration_s: float


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse options, and ways of drafting that transformers does not have or that lose something.

    Raises:
        PlugError: an option, such a way of drafting, or a draft without weights to load.
    """
    _refuse_options(spec)
    speculation = None if cell.speculation == "none" else cell.speculation
    draft = _check_drafting(speculation, cell.workload.temperature).draft
    if draft is not None and draft.weights == "random":
        raise _no_weights(draft.source)


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """One repetition: our loop on all rows, then transformers on each; the engine ends rewound.

    Raises:
        PlugError: an option, an engine that shows no model, or a method that transformers does not have.
    """
    _refuse_options(spec)
    if not isinstance(engine, TorchEngine):
        fix = "engine: {kind: transformers, mode: eager}"
        raise PlugError("experiment.kind: assisted needs an engine that shows its PyTorch model", fix=fix)
    from tokbench.measure.engines.transformers.assisted import generate_assisted  # torch

    speculation = _check_drafting(work.speculation, work.temperature)
    draft = None if work.draft is None else _load(work.draft, engine.model)
    ours = _own_rounds(engine, work)
    for row, prompt in enumerate(work.prompts):
        begun = (*prompt, ours[row].tokens[0])  # ours has its first token from the prefill, theirs drafts it
        found = generate_assisted(engine.model, draft, begun, work.output_tokens - 1, speculation, engine.sync)
        theirs = _Rounds((begun[-1], *found.tokens), found.drafted, found.accepted, found.duration_s)
        same = _same_tokens(ours[row].tokens, theirs.tokens)
        for name, rounds in (("tokbench", ours[row]), ("transformers", theirs)):
            yield ExperimentPoint(
                trial_id=trial_id,
                window_id=f"{trial_id}/experiment/{name}/{row}",
                experiment="assisted",
                settings={
                    "implementation": name,
                    "row": row,
                    "rows": work.rows,
                    "method": speculation.method,
                    "gamma": speculation.gamma,
                    "output_tokens": work.output_tokens,
                },
                duration_s=rounds.duration_s,
                stamped_by="host",
                values={**_counts(rounds, speculation.gamma), "same_tokens": same},
            )
    engine.rewind(0)


def _refuse_options(spec: ExperimentSpec) -> None:
    if spec.options:
        raise PlugError(f"experiment.options: unknown {', '.join(sorted(spec.options))}", fix="assisted has no options")


def _check_drafting(speculation: SpeculationSpec | None, temperature: float) -> SpeculationSpec:
    """What transformers can be asked to do, as it was asked for.

    Raises:
        PlugError: it cannot do this, or cannot do it without loss.
    """
    if speculation is None:
        raise PlugError("experiment.kind: assisted needs a way of drafting", fix="speculation: {method: prompt_lookup}")
    if speculation.method not in METHODS:
        raise PlugError(
            f"experiment.kind: transformers' assisted generation has nothing like {speculation.method!r}",
            fix=f"methods: {', '.join(METHODS)}",
        )
    if temperature > 0 or speculation.accept != "lossless":
        raise PlugError(
            "experiment.kind: assisted compares likeliest tokens, accepted without loss", fix="workload.temperature: 0"
        )
    return speculation


def _no_weights(draft: str) -> PlugError:
    return PlugError(
        f"experiment.kind: {draft} has random weights: what it drafts says nothing",
        fix="a draft with pretrained weights",
    )


def _own_rounds(engine: StepEngine, work: CellWork) -> list[_Rounds]:
    """Our loop, all rows at once: each row's duration is that of the whole batch, its prefill included."""
    engine.rewind(0)
    started_at_ns = engine.sync()
    engine.prefill()
    steps = list(engine.decode(work.output_tokens - 1))
    duration_s = (engine.sync() - started_at_ns) * 1e-9
    rounds = [step.round for step in steps if step.round is not None]
    if len(rounds) < len(steps):
        raise TrialError("the engine told nothing of its rounds", cause="engine")
    found = []
    for row, tokens in enumerate(engine.output_tokens()):
        own = [each for each in rounds if each.emitted[row]]
        drafted, accepted = tuple(each.drafted[row] for each in own), tuple(each.accepted[row] for each in own)
        found.append(_Rounds(tokens, drafted, accepted, duration_s))
    return found


def _counts(rounds: _Rounds, gamma: int) -> dict[str, int | float]:
    """Sums over the rounds that began with more than γ tokens to go.

    Behind them transformers drafts less, and ours drops what lies beyond the end: there the two differ by design.
    """
    left, whole = len(rounds.tokens) - 1, []
    for drafted, accepted in zip(rounds.drafted, rounds.accepted, strict=True):
        if left <= gamma:
            break
        whole.append((drafted, accepted))
        left -= accepted + 1
    return {
        "rounds": len(whole),
        "drafted": sum(drafted for drafted, _ in whole),
        "accepted": sum(accepted for _, accepted in whole),
        "emitted": sum(accepted + 1 for _, accepted in whole),
        "all_rounds": len(rounds.drafted),
    }


def _same_tokens(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Tokens before the first that differs."""
    pairs = enumerate(zip(ours, theirs, strict=True))
    return next((place for place, pair in pairs if pair[0] != pair[1]), len(ours))


def _load(draft: DraftModel, target: Any) -> Any:
    """The model that drafts, once more and for transformers alone: ours was laid out for our loop.

    Raises:
        PlugError: it has no weights of its own to load.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig  # loaded already where there is a model

    if draft.weights_folder is None:
        raise _no_weights(draft.name)
    dtype = getattr(torch, draft.model.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise PlugError(f"speculation.draft.dtype: assisted loads no {draft.model.dtype}", fix="bfloat16 or float32")
    model = AutoModelForCausalLM.from_pretrained(str(draft.weights_folder), dtype=dtype).to(target.device).eval()
    model.generation_config = GenerationConfig()  # penalties of its generation_config.json would change its drafts
    return model
