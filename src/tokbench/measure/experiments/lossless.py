"""Whether drafting changes what comes out: tokens beside those without drafts, and draws beside draws.

Greedy, row by row: with drafts; with a rule that is lossy on purpose, the control that must be found; and without
drafts at another static batch, which shows what rounding alone changes. Sampled, for the prompts of the first rows:
how often which tokens follow, without drafts, with them, and with the lossy rule. It compares and counts tokens, and
judges nothing.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine, TorchEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec, Option, SpeculationSpec

DESCRIPTION = (
    "tokens with drafts beside those without: greedy, and sampled where options.draws is above 0 (default 256 draws "
    "behind each of options.prefixes prompts, default 1, options.draw_rows of each at a time, default 8, at "
    "options.temperature, default 1.0); options.control_rows: another batch, default twice the cell's, 0 for none"
)
COUNTED = 2
"""Tokens that are counted behind the first one, which the prefill draws: a draft, and what follows it. Draws draft no
more than so many a round: what lies beyond is not counted."""
SEED_STRIDE = 7_368_787
"""Between the seeds of two arms; a prime, unlike the strides by which engines tell their repetitions apart."""
Tokens = tuple[tuple[int, ...], ...]


class _Setting(NamedTuple):
    draws: int
    draw_rows: int
    prefixes: int
    temperature: float
    control_rows: int


class _Generated(NamedTuple):
    tokens: Tokens
    seconds: float


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse wrong options, and cells whose drafting is not meant to be lossless.

    Raises:
        PlugError: an unknown option, a value that it or the cell cannot take, or such a cell.
    """
    assert cell.load.kind == "static_batch"  # held by check_experiment
    _read(spec.options, cell.load.static_batch, cell.workload.temperature)
    _check_drafting(None if cell.speculation == "none" else cell.speculation)


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """One repetition: up to three greedy comparisons for every row, and the draws of the first prompts.

    Prepares the engine for each of them and at last for the cell's own work again; none of that is timed.

    Raises:
        PlugError: an unknown option, or a cell whose drafting is not meant to be lossless.
    """
    setting = _read(spec.options, work.rows, work.temperature)
    _check_drafting(work.speculation)
    yield from _compare_greedy(engine, dataclasses.replace(work, temperature=0.0), setting, trial_id)
    if setting.draws:
        yield from _draw(engine, _draw_work(work, setting, trial_id), setting, trial_id)
    engine.prepare(work)


def _read(options: Mapping[str, Option], rows: int, usual_temperature: float) -> _Setting:
    """The options of a cell of so many rows and its temperature; 0 of these gives draws a temperature of 1."""
    unknown = sorted(set(options) - set(_Setting._fields))
    if unknown:
        raise PlugError(
            f"experiment.options: unknown {', '.join(unknown)}", fix=f"known: {', '.join(_Setting._fields)}"
        )
    temperature = options.get("temperature", usual_temperature or 1.0)
    if isinstance(temperature, bool | str) or temperature <= 0:
        raise PlugError("experiment.options.temperature: draws need a number above 0", fix="e.g. 1.0")
    setting = _Setting(
        draws=_whole(options, "draws", 256, least=0),
        draw_rows=_whole(options, "draw_rows", 8, least=1),
        prefixes=_whole(options, "prefixes", 1, least=1),
        temperature=float(temperature),
        control_rows=_whole(options, "control_rows", 2 * rows, least=0),
    )
    if 0 < setting.control_rows <= rows:
        said = f"experiment.options.control_rows: {setting.control_rows} is no larger than the cell's own static batch"
        raise PlugError(said, fix=f"above {rows}, or 0 for no other batch")
    if setting.prefixes > rows:
        said = f"experiment.options.prefixes: the cell has {rows} prompts at a time, not {setting.prefixes}"
        raise PlugError(said, fix=f"at most {rows}, or a larger load.static_batch")
    return setting


def _whole(options: Mapping[str, Option], name: str, default: int, least: int) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PlugError(
            f"experiment.options.{name}: {value!r} is no whole number from {least} on", fix=f"e.g. {default}"
        )
    return value


def _check_drafting(speculation: SpeculationSpec | None) -> None:
    if speculation is None:
        fix = "e.g. speculation: {method: prompt_lookup, gamma: 4}"
        raise PlugError("experiment.kind: lossless compares a way of drafting, and the cell has none", fix=fix)
    if speculation.method == "replay":
        fix = "a method that drafts, or experiment: none"
        raise PlugError("experiment.kind: a replay accepts by its trace, so its tokens are not the model's", fix=fix)
    if speculation.accept != "lossless":
        fix = "leave speculation.accept out: the experiment runs the lossy rule by itself, as its control"
        raise PlugError(f"experiment.kind: accept {speculation.accept!r} is lossy from the outset", fix=fix)


def _without_drafts(work: CellWork) -> CellWork:
    return dataclasses.replace(work, speculation=None, draft=None)


def _lossy(work: CellWork) -> CellWork:
    assert work.speculation is not None  # checked before
    return dataclasses.replace(work, speculation=work.speculation.model_copy(update={"accept": "top3"}))


def _generate(engine: StepEngine, work: CellWork) -> _Generated:
    """All output tokens of every row, and how long prefill and decode took together."""
    engine.prepare(work)
    engine.rewind(0)
    begun = engine.sync()
    engine.prefill()
    for _ in engine.decode(work.output_tokens - 1):
        pass
    seconds = (engine.sync() - begun) * 1e-9
    return _Generated(engine.output_tokens(), seconds)


def _compare_greedy(engine: StepEngine, work: CellWork, setting: _Setting, trial_id: str) -> Iterator[ExperimentPoint]:
    """A point per row and check: how many tokens were compared, and how many agree before the first that does not."""
    plain = _generate(engine, _without_drafts(work))
    checks = {"greedy": work, "lossy": _lossy(work)}
    if setting.control_rows:
        repeated = tuple(work.prompts[row % work.rows] for row in range(setting.control_rows))
        checks["batch"] = dataclasses.replace(_without_drafts(work), prompts=repeated)
    for check, other in checks.items():
        found = _generate(engine, other)
        for row in range(work.rows):
            compared = min(len(plain.tokens[row]), len(found.tokens[row]))
            matched = _agreeing(plain.tokens[row], found.tokens[row])
            values: dict[str, int | float] = {"compared": compared, "matched": matched}
            gap = _top2_gap(engine, work.prompts[row], plain.tokens[row][:matched]) if matched < compared else None
            if gap is not None:
                values["top2_gap"] = gap
            yield ExperimentPoint(
                trial_id=trial_id,
                window_id=f"{trial_id}/experiment/{check}/{row}",
                experiment="lossless",
                settings={"check": check, "row": row, "rows": other.rows},
                duration_s=found.seconds,
                stamped_by=engine.facts.stamped_by,
                values=values,
            )


def _agreeing(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Tokens before the first that differs."""
    pairs = zip(first, second, strict=False)
    return next((place for place, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(first), len(second)))


def _top2_gap(engine: StepEngine, prompt: tuple[int, ...], tokens: tuple[int, ...]) -> float | None:
    """Between the two best logits of the token behind these, in a pass without drafts; None without a model to ask."""
    if not isinstance(engine, TorchEngine):
        return None
    import torch  # loaded already where there is a model

    model = engine.model
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *tokens]], device=next(model.parameters()).device)
        best = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float().topk(2).values
    return float(best[0] - best[1])


def _draw_work(work: CellWork, setting: _Setting, trial_id: str) -> CellWork:
    """What the arms of one repetition are asked for, but for their way of decoding.

    The seed is of this repetition: where the same prompts come round again, the draws behind them are new ones.
    """
    assert work.speculation is not None  # checked before
    return dataclasses.replace(
        work,
        prompts=tuple(prompt for prompt in work.prompts[: setting.prefixes] for _ in range(setting.draw_rows)),
        output_tokens=1 + COUNTED,
        temperature=setting.temperature,
        seed=(work.seed + zlib.crc32(trial_id.encode())) % 2**32,
        speculation=work.speculation.model_copy(update={"gamma": min(work.speculation.gamma, COUNTED)}),
    )


def _draw(engine: StepEngine, drawn: CellWork, setting: _Setting, trial_id: str) -> Iterator[ExperimentPoint]:
    """A point per arm and prompt: how often which tokens followed.

    Prefilled once, then decoded again and again from just behind the prompt: the first token of each row stays, so it
    is a part of the name under which the others are counted. Each arm has a seed of its own: with the same random
    numbers two arms would agree better than two independent samples of one distribution do.
    """
    arms = {"plain": _without_drafts(drawn), "speculative": drawn, "lossy": _lossy(drawn)}
    for place, (arm, asked) in enumerate(arms.items()):
        other = dataclasses.replace(asked, seed=(asked.seed + place * SEED_STRIDE) % 2**32)
        counts, seconds = _count_draws(engine, other, setting)
        for row, counted in enumerate(counts):
            yield ExperimentPoint(
                trial_id=trial_id,
                window_id=f"{trial_id}/experiment/sampled/{arm}/{row}",
                experiment="lossless",
                settings={
                    "check": "sampled",
                    "arm": arm,
                    "row": row,
                    "rows": other.rows,
                    "gamma": 0 if other.speculation is None else other.speculation.gamma,
                    "temperature": setting.temperature,
                    "seed": other.seed,
                },
                duration_s=seconds,
                stamped_by=engine.facts.stamped_by,
                values=dict(sorted(counted.items())),
            )


def _count_draws(engine: StepEngine, work: CellWork, setting: _Setting) -> tuple[list[Counter[str]], float]:
    """How often which tokens followed each prompt, prompt by prompt, and how long all draws took together."""
    engine.prepare(work)
    engine.rewind(0)
    begun = engine.sync()
    engine.prefill()
    counts: list[Counter[str]] = [Counter() for _ in range(setting.prefixes)]
    for _ in range(-(-setting.draws // setting.draw_rows)):
        engine.rewind(work.prompt_tokens)
        for _ in engine.decode(COUNTED):
            pass
        for row, tokens in enumerate(engine.output_tokens()):
            counts[row // setting.draw_rows][" ".join(map(str, tokens))] += 1
    return counts, (engine.sync() - begun) * 1e-9
