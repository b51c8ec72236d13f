"""Questions with one exact answer, asked with growing budgets of thinking tokens. It counts right answers, no shares.

Each question is thought about once, greedily, up to the largest budget or the model's own end. For each budget the
thoughts are cut there, `Answer:` is put behind them, and what the model then writes is compared with the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine, TorchEngine
from tokbench.measure.questions import QuestionSet, read_questions
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec

DESCRIPTION = (
    "right answers to frozen questions over budgets of thinking tokens (options: task; questions, default 0: all; "
    "budgets, default '0,16,32,64,128')"
)
DEFAULTS = {"task": "", "questions": 0, "budgets": "0,16,32,64,128"}
PRETRAINED = "model.weights=pretrained, of a model that brings a tokenizer"
ANSWER_TOKENS = 8
BEFORE, AFTER = "Question: {question}\nThoughts:", "\nAnswer:"


@runtime_checkable
class ReadableTokenizer(Protocol):
    """A tokenizer that goes both ways."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""


class _Asked(NamedTuple):
    questions: QuestionSet
    budgets: tuple[int, ...]


class _Speaker(NamedTuple):
    """A model with its tokenizer, and the token ids at which it ends by itself."""

    model: Any
    tokenizer: ReadableTokenizer
    ends: tuple[int, ...]


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse wrong options, and weights that bring no tokenizer.

    Raises:
        PlugError: an unknown option, a value that it cannot take, or random weights.
        SpecError: a task or number of questions that is not there.
    """
    _read(spec)
    if cell.model.weights == "random":
        raise PlugError("experiment answers needs a tokenizer, and random weights have none", fix=PRETRAINED)


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """A point for all the thinking, then one per budget with `right.ID` and `thinking.ID` of every question.

    Raises:
        PlugError: an unknown option, or an engine that shows no model or no tokenizer that reads its tokens.
        SpecError: a task or number of questions that is not there.
    """
    asked = _read(spec)
    speaker = _speaker(engine)
    encode, questions = speaker.tokenizer.encode, asked.questions.questions
    begun = engine.sync()
    prompts = [encode(BEFORE.format(question=item.question)) for item in questions]
    thoughts = _continue(speaker, prompts, max(asked.budgets)) if max(asked.budgets) else [[] for _ in prompts]
    point = _Pointer(engine, asked, trial_id)
    yield point.make(begun, "thinking", max(asked.budgets), _named("thinking", asked, map(len, thoughts)))
    for budget in asked.budgets:
        begun = engine.sync()
        cut = [ids[:budget] for ids in thoughts]
        forced = [prompt + ids + encode(AFTER) for prompt, ids in zip(prompts, cut, strict=True)]
        said = [speaker.tokenizer.decode(ids) for ids in _continue(speaker, forced, ANSWER_TOKENS)]
        right = [int(item.is_answered_by(text)) for item, text in zip(questions, said, strict=True)]
        values = _named("right", asked, right) | _named("thinking", asked, map(len, cut))
        yield point.make(begun, "answer", budget, values)
    engine.rewind(0)


class _Pointer(NamedTuple):
    """Makes the points of one repetition."""

    engine: StepEngine
    asked: _Asked
    trial_id: str

    def make(self, begun_at_ns: int, phase: str, budget: int, values: dict[str, int | float]) -> ExperimentPoint:
        """The point of a window that ends now: all questions together."""
        questions = self.asked.questions
        settings: dict[str, str | int | float] = {"task": questions.task, "sha256": questions.sha256}
        return ExperimentPoint(
            trial_id=self.trial_id,
            window_id=f"{self.trial_id}/experiment/{phase}-{budget}",
            experiment="answers",
            settings=settings | {"phase": phase, "budget": budget},
            duration_s=(self.engine.sync() - begun_at_ns) * 1e-9,
            stamped_by="host",
            values=values,
        )


def _named(name: str, asked: _Asked, counts: Iterator[int] | Sequence[int]) -> dict[str, int | float]:
    questions = asked.questions.questions
    return {f"{name}.{item.id}": count for item, count in zip(questions, counts, strict=True)}


def _speaker(engine: StepEngine) -> _Speaker:
    if not isinstance(engine, TorchEngine):
        raise PlugError("experiment answers needs an engine that shows its model", fix="engine.kind=transformers")
    if not isinstance(engine.tokenizer, ReadableTokenizer):
        raise PlugError("experiment answers needs a tokenizer, and these weights came without one", fix=PRETRAINED)
    ends = getattr(engine.model.generation_config, "eos_token_id", None)
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    return _Speaker(engine.model, engine.tokenizer, tuple(ends))


def _continue(speaker: _Speaker, prompts: Sequence[list[int]], count: int) -> list[list[int]]:
    """Up to `count` greedy tokens behind each prompt, its own end left out; all prompts in one padded batch."""
    import torch  # only where an engine is

    longest = max(map(len, prompts))
    device = next(speaker.model.parameters()).device
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=device)
    with torch.inference_mode():
        made = speaker.model.generate(
            ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=count,
            eos_token_id=list(speaker.ends) or -1,
            pad_token_id=speaker.ends[0] if speaker.ends else 0,
            disable_compile=True,
        )
    return [_until_end(row, speaker.ends) for row in made[:, longest:].tolist()]


def _until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    return next((ids[:place] for place, token in enumerate(ids) if token in ends), ids)


def _read(spec: ExperimentSpec) -> _Asked:
    unknown = set(spec.options) - set(DEFAULTS)
    if unknown:
        fix = f"known: {', '.join(DEFAULTS)}"
        raise PlugError(f"experiment.options: answers does not know {', '.join(sorted(unknown))}", fix=fix)
    options = {**DEFAULTS, **spec.options}
    if type(options["questions"]) is not int:
        raise PlugError(f"experiment.options.questions: {options['questions']!r} is no whole number", fix="0 for all")
    text = str(options["budgets"]).replace(" ", "")
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise PlugError(f"experiment.options.budgets: {text!r} is no list of whole numbers", fix="'0,16,32,64,128'")
    budgets = tuple(sorted({int(part) for part in text.split(",")}))
    return _Asked(read_questions(str(options["task"]), options["questions"]), budgets)
