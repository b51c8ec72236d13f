"""Text to train on that lies on every machine with Python: its standard library and its manual. Nothing is kept."""

from __future__ import annotations

import ast
import hashlib
import importlib
import platform
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SKIPPED = ("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "pydoc_data")
"""Folders that are not the library itself, or hold tables and broken files on purpose."""
HELD_OUT_OF_256 = 26
"""Files whose path's hash begins with a byte below this are never trained on: one in ten."""
MAX_CHARACTERS = 60_000
"""Of one file: long tables would outweigh everything else."""


class Text(NamedTuple):
    """One file."""

    name: str
    """Relative to the library's folder."""
    content: str
    is_held_out: bool


def library_texts(folder: Path | None = None) -> list[Text]:
    """The library's Python files, in an order that their paths alone decide."""
    root = folder if folder is not None else Path(sysconfig.get_path("stdlib"))
    paths = (path for path in root.rglob("*.py") if not set(SKIPPED) & set(path.relative_to(root).parts))
    by_hash = sorted((hashlib.sha256(path.relative_to(root).as_posix().encode()).digest(), path) for path in paths)
    found = []
    for digest, path in by_hash:
        content = path.read_text(encoding="utf-8", errors="replace")[:MAX_CHARACTERS]
        if len(content) > 400:
            found.append(Text(path.relative_to(root).as_posix(), content, digest[0] < HELD_OUT_OF_256))
    return found


class Corpus(NamedTuple):
    """Texts, and what tells them from those of another machine."""

    texts: list[Text]
    label: str
    """What they are, in words."""
    sha256: str
    """Of all names and contents in their order."""


def corpus(texts: list[Text] | None = None) -> Corpus:
    """The library's sources and the language's manual, as this interpreter brings them."""
    found = [*library_texts(), *manual_texts()] if texts is None else texts
    digest = hashlib.sha256()
    for text in found:
        digest.update(f"{text.name}\0{text.content}\0".encode())
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return Corpus(found, f"sources of the standard library and the language's manual of {version}", digest.hexdigest())


def manual_texts() -> list[Text]:
    """The language reference as `help()` shows it: the prose that comes with an interpreter, where it does."""
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:  # some systems package it apart
        return []
    found = []
    for name, content in sorted(topics.items()):
        if len(content) > 400:
            held = hashlib.sha256(name.encode()).digest()[0] < HELD_OUT_OF_256
            found.append(Text(f"manual/{name}", content[:MAX_CHARACTERS], held))
    return found


def docstrings(text: Text) -> Iterator[tuple[str, str]]:
    """Functions and classes of a file with what their docstrings say: (name, text)."""
    try:
        tree = ast.parse(text.content)
    except (SyntaxError, ValueError):  # cut off in the middle, or written for another Python
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            said = ast.get_docstring(node)
            if said and len(said) > 120:
                yield f"{text.name.removesuffix('.py').replace('/', '.')}.{node.name}", said


QUESTIONS = (
    "What does {name} do, and when would somebody need it?",
    "Explain this to a beginner:\n{said}",
    "Summarise the following in two sentences:\n{said}",
    "Rewrite the following text and change as little as possible:\n{said}",
    "Give an example of how {name} is used.",
    "Write a short story in which somebody has to explain {name} to a friend.",
)


def questions(text: Text, draw: random.Random) -> Iterator[str]:
    """Questions and orders about what a file documents."""
    for name, said in docstrings(text):
        yield draw.choice(QUESTIONS).format(name=name, said=said[:400])
