"""Questions with a budget of thinking tokens: what is cut where, what counts as right, what is refused."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from byte_models import write_byte_model  # noqa: E402
from scripted_measure import engine_request  # noqa: E402
from tiny_engines import request, work  # noqa: E402
from tokbench.errors import DataError, PlugError, SpecError  # noqa: E402
from tokbench.measure import questions  # noqa: E402
from tokbench.measure.engines.fake import open_engine as open_fake  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.experiments import answers  # noqa: E402
from tokbench.measure.questions import Question, read_questions, tasks  # noqa: E402
from tokbench.record.observations import ExperimentPoint  # noqa: E402
from tokbench.record.spec import ExperimentSpec  # noqa: E402

END = 255


class Bytes:
    """A tokenizer of one token a byte."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode()


class Thinker:
    """A model that counts up while it thinks and knows the answer once it has thought five tokens or more."""

    def __init__(self, known: dict[str, str], ends_after: int | None = None) -> None:
        self.known, self.ends_after = known, ends_after
        self.generation_config = types.SimpleNamespace(eos_token_id=END)
        self.asked: list[str] = []

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def generate(self, ids: Any, attention_mask: Any, max_new_tokens: int, **how: Any) -> Any:
        rows = []
        for row, mask in zip(ids.tolist(), attention_mask.tolist(), strict=True):
            assert row[: mask.count(0)] == [0] * mask.count(0)
            rows.append(self._say(bytes(row[mask.count(0) :]).decode(), max_new_tokens))
        assert [END, False] == [how["pad_token_id"], how["do_sample"]]
        return torch.cat([ids, torch.tensor(rows)], dim=1)

    def _say(self, prompt: str, count: int) -> list[int]:
        self.asked.append(prompt)
        question, _, thoughts = prompt.partition("\nThoughts:")
        if not thoughts.endswith("\nAnswer:"):
            made = list(b"0123456789" * count)[:count]
            return made if self.ends_after is None else (made[: self.ends_after] + [END] * count)[:count]
        said = self.known[question.removeprefix("Question: ")] if len(thoughts) - len("\nAnswer:") >= 5 else "nothing"
        return list(f" {said}\nand more".encode()[:count].ljust(count))


class Engine:
    """What the experiment sees of an engine."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokenizer, self.now = model, Bytes(), 0

    def sync(self) -> int:
        self.now += 10**9
        return self.now

    def rewind(self, position: int) -> None:
        assert position == 0


def points(engine: Any, **options: Any) -> list[ExperimentPoint]:
    spec = ExperimentSpec(kind="answers", options={"task": "ordering", "questions": 3, "budgets": "0,4,5,8", **options})
    return list(answers.run(engine, work(), spec, "t"))


def thinker(ends_after: int | None = None) -> Engine:
    known = {item.question: item.answer for item in read_questions("ordering", 0).questions}
    return Engine(Thinker(known, ends_after))


def test_each_budget_sees_so_many_thoughts_and_right_answers_are_counted() -> None:
    engine = thinker()
    thinking, *found = points(engine)

    assert ("thinking", 8) == (thinking.settings["phase"], thinking.settings["budget"])
    assert [0, 4, 5, 8] == [point.settings["budget"] for point in found]
    names = [item.id for item in read_questions("ordering", 3).questions]
    for point, right in zip(found, (0, 0, 1, 1), strict=True):
        assert {f"right.{name}": right for name in names} | {
            f"thinking.{name}": point.settings["budget"] for name in names
        } == point.values
    assert [1.0] * 5 == [point.duration_s for point in (thinking, *found)]
    first = read_questions("ordering", 1).questions[0].question
    assert engine.model.asked[0] == f"Question: {first}\nThoughts:"
    assert f"Question: {first}\nThoughts:0123\nAnswer:" in engine.model.asked
    assert f"Question: {first}\nThoughts:\nAnswer:" in engine.model.asked


def test_a_model_that_ends_its_thoughts_has_thought_no_more() -> None:
    *_, last = points(thinker(ends_after=5))
    assert {5} == {value for name, value in last.values.items() if name.startswith("thinking.")}
    assert {1} == {value for name, value in last.values.items() if name.startswith("right.")}


def test_no_budget_asks_for_no_thought() -> None:
    engine = thinker()
    thinking, _ = points(engine, budgets="0")
    assert {0} == set(thinking.values.values())
    assert all(prompt.endswith("\nThoughts:\nAnswer:") for prompt in engine.model.asked)


def test_a_real_model_is_asked_in_one_batch_and_rewound(tmp_path: Path) -> None:
    engine = TransformersEngine(request(folder=write_byte_model(tmp_path, steps=1)))
    engine.prepare(work(output_tokens=4))
    found = points(engine, task="clock", questions=2, budgets="0,6")
    assert [6, 0, 6] == [point.settings["budget"] for point in found]
    assert all(point.duration_s > 0 for point in found)
    assert found == [
        point.model_copy(update={"duration_s": one.duration_s})
        for point, one in zip(points(engine, task="clock", questions=2, budgets="0,6"), found, strict=True)
    ]
    assert engine.prefill().tokens_per_row == 1


@pytest.mark.parametrize(
    ("said", "is_right"),
    [(" Ada", True), (" **ada**.", True), ("Ada and", True), (" Adam", False), ("not Ada", False), ("", False)],
)
def test_only_the_first_word_counts(said: str, is_right: bool) -> None:
    assert is_right == Question(id="a", question="Who?", answer="Ada").is_answered_by(said)


def test_a_sign_and_a_colon_belong_to_the_answer() -> None:
    assert not Question(id="a", question="", answer="-391").is_answered_by(" 391")
    assert Question(id="a", question="", answer="09:05").is_answered_by(" 09:05.")


def test_the_frozen_answers_are_those_of_their_questions() -> None:
    assert ("arithmetic", "clock", "counting", "ordering") == tasks()
    for item in read_questions("arithmetic", 0).questions:
        asked = item.question.removeprefix("What is ").removesuffix("?")
        assert eval(asked, {"__builtins__": {}}) == int(item.answer), item.id
    for item in read_questions("counting", 0).questions:
        letter = item.question.split("letter ")[1][0]
        assert item.question.partition(": ")[2].count(letter) == int(item.answer), item.id
    for item in read_questions("clock", 0).questions:
        numbers = [int(part) for part in item.question.replace(":", " ").replace(".", " ").split() if part.isdigit()]
        minutes = sum(a * b for a, b in zip(numbers, (60, 1, 60, 1), strict=True)) % 1440
        assert f"{minutes // 60:02d}:{minutes % 60:02d}" == item.answer, item.id
    for item in read_questions("ordering", 0).questions:
        assert order_of(item.question)[RANKS.index(item.question.split(" is the ")[1].split(" of ")[0])] == item.answer
    names = [item.id for task in tasks() for item in read_questions(task, 0).questions]
    assert 120 == len(names) == len(set(names))


RANKS = ("oldest", "second oldest", "third oldest", "fourth oldest", "youngest")


def order_of(question: str) -> list[str]:
    older = dict(
        reversed(fact.removesuffix(" ").split(" is older than "))
        for fact in question.split(".")
        if " is older than " in fact
    )
    older = {younger.strip(): elder.strip() for younger, elder in older.items()}
    (youngest,) = set(older) - set(older.values())
    line = [youngest]
    while line[-1] in older:
        line.append(older[line[-1]])
    return line[::-1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tasks": "clock"}, PlugError, "answers does not know tasks"),
        ({"budgets": "1,x"}, PlugError, "'1,x' is no list of whole numbers"),
        ({"questions": "all"}, PlugError, "'all' is no whole number"),
        ({"questions": 31}, SpecError, "task ordering has 30 questions, not 31"),
        ({"task": "poetry"}, SpecError, "there is no task 'poetry'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        points(thinker(), **options)


def test_engines_without_a_model_or_a_tokenizer_are_refused() -> None:
    with pytest.raises(PlugError, match="shows its model"):
        points(open_fake(engine_request(step_s=0.01)))
    silent = thinker()
    silent.tokenizer = None  # type: ignore[assignment]
    with pytest.raises(PlugError, match="needs a tokenizer"):
        points(silent)


def test_a_sheet_that_is_not_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "FILE", "corpus.txt")
    questions._read.cache_clear()
    with pytest.raises(DataError, match=r"data/prompts/corpus\.txt: cannot be read"):
        tasks()
    monkeypatch.undo()
    questions._read.cache_clear()


def test_the_advice_that_comes_with_weights_bends_no_greedy_token(tmp_path: Path) -> None:
    """Qwen2.5 brings repetition_penalty 1.1, which `generate` follows with do_sample=False too."""
    folder = write_byte_model(tmp_path)
    advice = {"do_sample": True, "repetition_penalty": 3.0, "no_repeat_ngram_size": 1, "eos_token_id": END}
    (folder / "generation_config.json").write_text(json.dumps(advice), encoding="utf-8")
    engine = TransformersEngine(request(folder=folder))
    engine.prepare(work())
    found = engine.check_identity(24)
    assert found is not None and found.first_divergence is None
    assert END == engine.model.generation_config.eos_token_id
