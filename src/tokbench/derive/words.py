"""The language of what a report and the console say: English templates, and their Chinese in data/wording/zh.

What `t` returns remembers its template and values: a reason that was made in English while the cells were judged is
printed in the language of the report by `say`. It words nothing itself and formats nothing but the values it is given.
Names of metrics, conditions, reason codes and keys are data and stay as they are, and so does every text that lies in
a record. docs/design/language.md says why.
"""

from __future__ import annotations

import contextlib
import functools
import string
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from tokbench.errors import DataError, SpecError

if TYPE_CHECKING:
    from tokbench.record.yaml_tree import Tree

ENGLISH = "en"
_LANGUAGES = (ENGLISH, "zh")
QUOTE = "put an entry that starts with a brace or holds a colon between double quotes"
WORDING_DIR = Path(__file__).resolve().parent.parent / "data" / "wording"
_code_in_force: ContextVar[str] = ContextVar("language", default=ENGLISH)


class Phrase(str):
    """A text that remembers the template and the values it was made of, so that `say` can word it anew."""

    template: str
    values: Mapping[str, object]

    def __str__(self) -> str:
        """The phrase itself: `str(error)` keeps what the error was raised with."""
        return self


def t(template: str, /, **values: object) -> str:
    """The template in the language in force, with its values filled in as `str.format` does.

    The template is a literal, or a constant that was marked with `mark`, and is looked up as it stands in the code. One
    that has no translation is said in English. A value that is a Phrase is said in the language in force too.
    """
    said = {name: say(value) if isinstance(value, Phrase) else value for name, value in values.items()}
    made = Phrase(_translated(template).format(**said))
    made.template, made.values = template, values
    return made


def mark(template: str) -> str:
    """The template itself: tells the check of the catalogue that a constant goes to `t` or `say` later."""
    return template


def say(text: str) -> str:
    """A text that was made earlier, in the language in force: a Phrase anew, a marked constant by its translation.

    Any other text, such as one out of a record, comes back as it is.
    """
    return t(text.template, **text.values) if isinstance(text, Phrase) else _translated(text)


COMMA, SEMICOLON = mark(", "), mark("; ")


def join(texts: Iterable[str], separator: str = COMMA) -> str:
    """The texts one after another, as a Phrase: `say` says each of them anew, which `str.join` forgets."""
    values: dict[str, object] = {f"text_{index}": text for index, text in enumerate(texts)}
    template = "{separator}".join(f"{{{name}}}" for name in values)
    return t(template, separator=t(separator), **values)


def _translated(template: str) -> str:
    code = _code_in_force.get()
    return template if code == ENGLISH else _catalogue(code).get(template, template)


def languages() -> tuple[str, ...]:
    """Codes of the languages that a report can be had in; the first is that of the templates."""
    return _LANGUAGES


def language() -> str:
    """Code of the language in force."""
    return _code_in_force.get()


@contextlib.contextmanager
def in_language(code: str) -> Iterator[None]:
    """Within it `t` speaks the language; outside it as before.

    Raises:
        SpecError: nobody wrote that language.
        DataError: its catalogue is wrong.
    """
    if code not in _LANGUAGES:
        raise SpecError(f"unknown language {code!r}", key="--lang", fix=f"use one of: {', '.join(_LANGUAGES)}")
    if code != ENGLISH:
        _catalogue(code)
    token = _code_in_force.set(code)
    try:
        yield
    finally:
        _code_in_force.reset(token)


def placeholders(template: str) -> frozenset[str]:
    """Names that the template wants values for.

    Raises:
        ValueError: a brace is open, or a value has no name.
    """
    names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    if any(not name.isidentifier() for name in names):
        raise ValueError("a placeholder is a plain name in braces; a brace that is meant is written twice")
    return frozenset(names)


@functools.cache
def _catalogue(code: str) -> Mapping[str, str]:
    return read_catalogue(WORDING_DIR / code)


def read_catalogue(folder: Path) -> dict[str, str]:
    """Every English template of the folder's files with its translation.

    Raises:
        DataError: a file is no mapping of text to text, two translations of one template differ, or a translation wants
            other values than its template.
    """
    from tokbench.record.yaml_tree import parse_tree  # English needs no YAML

    found: dict[str, str] = {}
    places: dict[str, str] = {}
    for path in sorted(folder.glob("*.yaml")):
        name = f"{folder.name}/{path.name}"
        try:
            tree = parse_tree(path.read_text(encoding="utf-8"), name)
        except SpecError as error:
            row = None if error.line is None else str(error.line)
            raise DataError(error.message, file=name, row=row, field=error.key, fix=error.fix or QUOTE) from None
        for template, translation in _entries(tree).items():
            _check(template, translation, tree)
            if found.setdefault(template, translation) != translation:
                fault = f"{template!r} is translated otherwise in {places[template]}"
                raise DataError(fault, file=name, row=_row(tree, template), fix="keep one translation, in one file")
            places.setdefault(template, name)
    if not found:
        raise DataError("no translation is there", file=folder.name, fix="install the package anew")
    return found


def _entries(tree: Tree) -> dict[str, str]:
    value = tree.value
    if not isinstance(value, dict):
        raise DataError("not a mapping of English templates", file=tree.file, fix="write lines of `English: 中文`")
    texts = {template: translation for template, translation in value.items() if isinstance(translation, str)}
    for template in value.keys() - texts.keys():
        raise DataError(
            f"the translation of {template!r} is no text", file=tree.file, row=_row(tree, template), fix="quote it"
        )
    return texts


def _check(template: str, translation: str, tree: Tree) -> None:
    try:
        wanted, given = placeholders(template), placeholders(translation)
    except ValueError as error:
        fault = f"{template!r} cannot be filled in: {error}"
        raise DataError(fault, file=tree.file, row=_row(tree, template), fix="mend the braces") from None
    if wanted != given:
        fault = f"{template!r} and its translation want different values: {sorted(wanted)}, {sorted(given)}"
        raise DataError(fault, file=tree.file, row=_row(tree, template), fix="name the same in both")


def _row(tree: Tree, template: str) -> str:
    """The line of an entry: a template is too long to find by eye."""
    return str(tree.line_of((template,)))
