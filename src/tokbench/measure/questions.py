"""Frozen questions with one exact answer, by task, and the rule by which an answer counts as right. It asks nobody."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import re
from typing import NamedTuple

import yaml
from pydantic import ValidationError

from tokbench.errors import DataError, SpecError
from tokbench.record.facts import Frozen

FILE = "reasoning.yaml"
_AROUND = " \t\"'`*$.,;:!()[]"
"""What may stand around an answer without being part of it."""


class Question(Frozen):
    """One question and the one answer that is right."""

    id: str
    question: str
    answer: str

    def is_answered_by(self, text: str) -> bool:
        """Whether the first word of a text is the answer, capitals and marks around it aside; nothing else counts."""
        words = text.strip().strip(_AROUND).split()
        return bool(words) and words[0].strip(_AROUND).casefold() == self.answer.casefold()


class _Sheet(Frozen):
    tasks: dict[str, tuple[Question, ...]]


class QuestionSet(NamedTuple):
    """The questions of one task, in their order."""

    task: str
    sha256: str
    """Of the file."""
    questions: tuple[Question, ...]


@functools.cache
def _read() -> tuple[str, _Sheet]:
    content = (importlib.resources.files("tokbench.data") / "prompts" / FILE).read_bytes()
    try:
        sheet = _Sheet.model_validate(yaml.safe_load(content))
    except (yaml.YAMLError, ValidationError) as error:
        first = re.sub(r"\s+", " ", str(error))
        raise DataError(f"cannot be read: {first}", file=f"data/prompts/{FILE}") from None
    return hashlib.sha256(content).hexdigest(), sheet


def tasks() -> tuple[str, ...]:
    """The tasks that have questions."""
    return tuple(_read()[1].tasks)


def read_questions(task: str, count: int) -> QuestionSet:
    """The first `count` questions of a task; 0 for all.

    Raises:
        SpecError: there is no such task, or it has fewer questions.
    """
    digest, sheet = _read()
    if task not in sheet.tasks:
        raise SpecError(f"there is no task {task!r}", key="experiment.options.task", fix=f"tasks: {', '.join(tasks())}")
    found = sheet.tasks[task]
    if not 0 <= count <= len(found):
        message = f"task {task} has {len(found)} questions, not {count}"
        raise SpecError(message, key="experiment.options.questions", fix=f"0 for all, or at most {len(found)}")
    return QuestionSet(task, digest, found[:count] if count else found)
