"""Frozen prompts by task: which of them a repetition works on. The sets lie in `data/prompts/`, each with its hash.

A set is frozen in `prompts.sha256`: numbers had with other prompts are not comparable. After a wanted change, in that
folder: `sha256sum *.jsonl > prompts.sha256`, and the record of every run says which set it had.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.resources
import json
from typing import NamedTuple

from tokbench.errors import DataError, SpecError
from tokbench.measure.engines import Tokenizer
from tokbench.record.observations import PromptsStaged
from tokbench.record.spec import WorkloadSpec

FROZEN = "prompts.sha256"
"""As `sha256sum` writes it: hash, two spaces, file name."""


class TaskSet(NamedTuple):
    """The prompts of one task, in their order."""

    task: str
    sha256: str
    """Of the file."""
    ids: tuple[str, ...]
    texts: tuple[str, ...]


class TakenPrompts(NamedTuple):
    """Prompts of one repetition, row by row."""

    task: str
    sha256: str
    prompt_ids: tuple[str, ...]
    prompts: tuple[tuple[int, ...], ...]
    """Token ids, all of one length."""

    def staged(self, trial_id: str) -> PromptsStaged:
        """What the record keeps of them."""
        return PromptsStaged(trial_id=trial_id, task=self.task, sha256=self.sha256, prompt_ids=self.prompt_ids)


def names() -> list[str]:
    """The tasks that a config may name."""
    folder = importlib.resources.files("tokbench.data") / "prompts"
    return sorted(entry.name.removesuffix(".jsonl") for entry in folder.iterdir() if entry.name.endswith(".jsonl"))


@functools.cache
def frozen_hashes() -> dict[str, str]:
    """SHA-256 by file name."""
    text = (importlib.resources.files("tokbench.data") / "prompts" / FROZEN).read_text(encoding="utf-8")
    return {name: digest for digest, name in (line.split() for line in text.splitlines())}


@functools.cache
def read_task(task: str) -> TaskSet:
    """The prompts of a task.

    Raises:
        SpecError: there is no such task. DataError: the file is not the frozen one, or not what its reader expects.
    """
    known = names()
    if task not in known:
        near = difflib.get_close_matches(task, known, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise SpecError(f"there is no task {task!r}", key="workload.task", fix=f"{hint}tasks: {', '.join(known)}")
    content = (importlib.resources.files("tokbench.data") / "prompts" / f"{task}.jsonl").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if frozen_hashes().get(f"{task}.jsonl") != sha256:
        fix = f"restore the file, or freeze it anew in {FROZEN} (measure/tasks.py says how)"
        raise DataError("the prompts are not those that were frozen", file=f"data/prompts/{task}.jsonl", fix=fix)
    rows = [json.loads(line) for line in content.decode("utf-8").splitlines() if line.strip()]
    if not rows or not all({"id", "prompt"} <= row.keys() for row in rows):
        raise DataError("each line holds an `id` and a `prompt`", file=f"data/prompts/{task}.jsonl")
    ids = tuple(str(row["id"]) for row in rows)
    return TaskSet(task, sha256, ids, tuple(str(row["prompt"]) for row in rows))


def take_prompts(workload: WorkloadSpec, rows: int, tokenizer: Tokenizer | None, repetition: int) -> TakenPrompts:
    """The next `rows` prompts of the set, round and round: the last `prompt_tokens` tokens of each.

    Raises:
        SpecError: no tokenizer, no length, or a prompt that is shorter than it.
    """
    assert workload.task is not None  # held by WorkloadSpec
    found = read_task(workload.task)
    if tokenizer is None:
        fix = "use weights that bring one, or workload.kind=synthetic"
        raise SpecError("a task needs a tokenizer, these weights came without one", key="workload.kind", fix=fix)
    length = workload.prompt_tokens
    if length is None:
        raise SpecError("a task needs the length of its prompts", key="workload.prompt_tokens", fix="e.g. 96")
    places = [(repetition * rows + row) % len(found.texts) for row in range(rows)]
    encoded = [tokenizer.encode(found.texts[place]) for place in places]
    for place, ids in zip(places, encoded, strict=True):
        if len(ids) < length:
            message = f"prompt {found.ids[place]!r} of task {found.task!r} has {len(ids)} tokens, not {length}"
            raise SpecError(message, key="workload.prompt_tokens", fix=f"at most {len(ids)}")
    return TakenPrompts(
        found.task,
        found.sha256,
        tuple(found.ids[place] for place in places),
        tuple(tuple(ids[-length:]) for ids in encoded),
    )
