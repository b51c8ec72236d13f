"""Frozen prompts by task: which they are, that nobody changes them unseen, and which of them a repetition takes."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokbench.errors import DataError, SpecError
from tokbench.measure import tasks
from tokbench.measure.models import cache_folder
from tokbench.record.spec import WorkloadSpec

TASKS = ("chat", "code", "edit")
FEWEST_PROMPTS, FEWEST_TOKENS = 30, 128


class Letters:
    """A tokenizer with a token per character."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def workload(task: str = "code", prompt_tokens: int | None = 96) -> WorkloadSpec:
    return WorkloadSpec(kind="task", task=task, prompt_tokens=prompt_tokens)


@pytest.fixture
def unfrozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the hashes were those of other files."""
    tasks.read_task.cache_clear()
    monkeypatch.setattr(tasks, "frozen_hashes", lambda: {"code.jsonl": "0" * 64})
    yield
    tasks.read_task.cache_clear()


def test_the_tasks_are_these() -> None:
    assert list(TASKS) == tasks.names()
    assert {f"{task}.jsonl" for task in TASKS} == set(tasks.frozen_hashes())


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_frozen(task: str) -> None:
    content = (importlib.resources.files("tokbench.data") / "prompts" / f"{task}.jsonl").read_bytes()
    frozen = hashlib.sha256(content).hexdigest()
    assert frozen == tasks.frozen_hashes()[f"{task}.jsonl"] == tasks.read_task(task).sha256


def test_prompts_that_are_not_the_frozen_ones_are_refused(unfrozen: None) -> None:
    with pytest.raises(DataError, match="not those that were frozen") as refused:
        tasks.read_task("code")
    assert "code.jsonl" in refused.value.where()
    assert "prompts.sha256" in str(refused.value.fix)


@pytest.mark.parametrize("task", TASKS)
def test_there_are_enough_and_none_twice(task: str) -> None:
    found = tasks.read_task(task)
    assert len(found.texts) == len(set(found.texts)) == len(set(found.ids)) >= FEWEST_PROMPTS
    assert len({text[-200:] for text in found.texts}) == len(found.texts)
    assert all(name.startswith(f"{task}-") for name in found.ids)
    assert all(text.isascii() for text in found.texts)


@pytest.mark.parametrize("task", ["chat", "edit"])
def test_dialogues_end_where_the_answer_begins(task: str) -> None:
    for text in tasks.read_task(task).texts:
        turns = text.split("<|im_start|>")[1:]
        assert "system" == turns[0].partition("\n")[0]
        assert "assistant" == turns[-1].partition("\n")[0] and "<|im_end|>" not in turns[-1]
        assert all(turn.endswith("<|im_end|>\n") for turn in turns[:-1])
        assert bool(turns[-1].partition("\n")[2]) == (task == "edit")


@pytest.mark.parametrize("text", tasks.read_task("code").texts, ids=tasks.read_task("code").ids)
def test_code_ends_inside_a_function(text: str) -> None:
    last = text.rstrip("\n").rpartition("\n")[2]
    indent = " " * (len(last) - len(last.lstrip()) + (4 if last.endswith(":") else 0))
    end = {"{": "}", "(": ")"}.get(last[-1], "pass")
    assert indent and text.endswith("\n") and '"""' in text
    compile(f"{text}{indent}{end}\n", "prompt", "exec")


@pytest.mark.parametrize("task", TASKS)
def test_each_is_long_enough_for_the_demo_model(task: str) -> None:
    found = sorted(cache_folder(os.environ).glob("converted/*/tokenizer.json"))
    if not found:
        pytest.skip("the demo model was not fetched: scripts/demo")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(found[0]))
    lengths = {
        name: len(tokenizer.encode(text).ids)
        for name, text in zip(tasks.read_task(task).ids, tasks.read_task(task).texts, strict=True)
    }
    assert {} == {name: length for name, length in lengths.items() if length < FEWEST_TOKENS}


def test_repetitions_take_the_next_prompts_round_and_round() -> None:
    count = len(tasks.read_task("code").texts)
    taken = [tasks.take_prompts(workload(), 3, Letters(), repetition) for repetition in (0, 1, count // 3)]
    assert ("code-01", "code-02", "code-03") == taken[0].prompt_ids
    assert ("code-04", "code-05", "code-06") == taken[1].prompt_ids
    assert "code-01" in taken[2].prompt_ids  # 34 prompts: the twelfth repetition begins again
    assert taken[0].sha256 == tasks.frozen_hashes()["code.jsonl"]


def test_the_end_of_a_prompt_is_kept() -> None:
    taken = tasks.take_prompts(workload(prompt_tokens=50), 1, Letters(), 0)
    assert tasks.read_task("code").texts[0][-50:] == "".join(map(chr, taken.prompts[0]))


@pytest.mark.parametrize(
    ("asked", "tokenizer", "message", "fix"),
    [
        (workload("cod"), Letters(), "there is no task 'cod'", "did you mean `code`?"),
        (workload(), None, "needs a tokenizer", "synthetic"),
        (workload(prompt_tokens=None), Letters(), "the length of its prompts", "96"),
        (workload(prompt_tokens=100_000), Letters(), "not 100000", "at most"),
    ],
    ids=["task", "tokenizer", "length", "too long"],
)
def test_what_cannot_be_taken_is_said(asked: WorkloadSpec, tokenizer: Letters | None, message: str, fix: str) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        tasks.take_prompts(asked, 1, tokenizer, 0)
    assert fix in str(refused.value.fix)


def test_prompts_go_into_the_wheel() -> None:
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'packages = ["src/tokbench"]' in text  # hatchling puts every file of a package into the wheel
