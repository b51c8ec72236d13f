"""Prompts: exact token counts, the same for the same seed, and clear words where there can be none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.errors import SpecError
from tokbench.measure.workloads import make_prompts
from tokbench.record.spec import WorkloadSpec


class Words:
    """A token a word: its length."""

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


def synthetic(prompt_tokens: int | None = 16) -> WorkloadSpec:
    return WorkloadSpec(kind="synthetic", prompt_tokens=prompt_tokens, output_tokens=8)


@given(rows=st.integers(1, 9), length=st.integers(1, 300), vocabulary=st.integers(1, 1000), seed=st.integers(0, 9))
def test_random_prompts_have_their_length_and_stay_in_the_vocabulary(
    rows: int, length: int, vocabulary: int, seed: int
) -> None:
    prompts = make_prompts(synthetic(length), rows, None, vocabulary, seed)
    assert [length] * rows == [len(prompt) for prompt in prompts]
    assert all(0 <= token < vocabulary for prompt in prompts for token in prompt)
    assert prompts == make_prompts(synthetic(length), rows, None, vocabulary, seed)


def test_the_seed_and_the_row_make_prompts_differ() -> None:
    first = make_prompts(synthetic(), 2, None, 512, 1)
    assert first[0] != first[1]
    assert first != make_prompts(synthetic(), 2, None, 512, 2)


@pytest.mark.parametrize("length", [1, 100, 100_000])
def test_text_prompts_are_cut_to_the_exact_length_even_beyond_the_corpus(length: int) -> None:
    prompts = make_prompts(synthetic(length), 3, Words(), 512, 1)
    assert [length] * 3 == [len(prompt) for prompt in prompts]
    assert prompts == make_prompts(synthetic(length), 3, Words(), 512, 1)
    if length > 1:
        assert 3 == len(set(prompts))


def test_a_fixed_text_is_the_same_in_every_row() -> None:
    workload = WorkloadSpec(kind="fixed", text="one three five", output_tokens=8)
    assert ((3, 5, 4), (3, 5, 4)) == make_prompts(workload, 2, Words(), 512, 1)


def test_a_fixed_text_can_be_shortened_but_not_stretched() -> None:
    workload = WorkloadSpec(kind="fixed", text="one three five", prompt_tokens=2, output_tokens=8)
    assert ((3, 5),) == make_prompts(workload, 1, Words(), 512, 1)
    longer = workload.model_copy(update={"prompt_tokens": 4})
    with pytest.raises(SpecError, match="has 3 tokens, fewer than the 4 asked for"):
        make_prompts(longer, 1, Words(), 512, 1)


def jsonl(path: Path, *lines: str) -> WorkloadSpec:
    path.write_text("\n".join(lines), encoding="utf-8")
    return WorkloadSpec(kind="jsonl", path=str(path), output_tokens=8)


def test_lines_go_round_the_rows_and_are_cut_to_the_shortest(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": text}) for text in ("a bb ccc", "dddd eeeee")]
    workload = jsonl(tmp_path / "prompts.jsonl", lines[0], "", lines[1])
    assert ((1, 2), (4, 5), (1, 2)) == make_prompts(workload, 3, Words(), 512, 1)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["{"], "not JSON"),
        (['{"text": "a"}'], 'no "prompt" text'),
        (["[1]"], 'no "prompt" text'),
        ([""], "holds no prompt"),
    ],
)
def test_a_file_that_is_no_workload_names_its_place(tmp_path: Path, lines: list[str], text: str) -> None:
    with pytest.raises(SpecError, match=text) as refused:
        make_prompts(jsonl(tmp_path / "prompts.jsonl", *lines), 1, Words(), 512, 1)
    assert str(tmp_path / "prompts.jsonl") in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    workload = WorkloadSpec(kind="jsonl", path=str(tmp_path / "none.jsonl"), output_tokens=8)
    with pytest.raises(SpecError, match="cannot be read: No such file"):
        make_prompts(workload, 1, Words(), 512, 1)


def test_text_needs_a_tokenizer_and_a_synthetic_prompt_a_length() -> None:
    with pytest.raises(SpecError, match="needs a tokenizer"):
        make_prompts(WorkloadSpec(kind="fixed", text="a", output_tokens=8), 1, None, 512, 1)
    with pytest.raises(SpecError, match="needs its length"):
        make_prompts(synthetic(None), 1, None, 512, 1)
