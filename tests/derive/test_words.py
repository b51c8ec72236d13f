"""The language mechanism, and that every sentence of a report has its Chinese: read out of the code itself."""

from __future__ import annotations

import ast
import copy
import functools
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokbench.derive.words import (
    COMMA,
    SEMICOLON,
    WORDING_DIR,
    Phrase,
    in_language,
    join,
    language,
    languages,
    placeholders,
    read_catalogue,
    say,
    t,
)
from tokbench.errors import DataError, SpecError

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tokbench"
WORDS = SOURCE / "derive" / "words.py"
MODULES = sorted(path for room in ("derive", "cli") for path in (SOURCE / room).rglob("*.py"))
CHINESE = read_catalogue(WORDING_DIR / "zh")
PARTS = {"Paragraph": 1, "Section": 1, "Item": 1, "bullets": 99, "Column": 2}
"""Parts of a document, and how many of their first arguments a reader sees."""
UNITS = {"tokens", "J/token", "tokens/s", "n", "%", "J", "W", "°C", "USD", "R²", "B / A"}
"""Heads of columns that are the same in every language."""


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def calls(path: Path, *names: str) -> Iterator[ast.Call]:
    for node in nodes(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def literals(node: ast.expr) -> list[str] | None:
    """The texts that an expression can be, None where that cannot be read off."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        either = (literals(node.body), literals(node.orelse))
        return None if None in either else [text for side in either for text in side or ()]
    return None


def worded(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every template that a module gives to `t` or `mark`, with the call."""
    for call in calls(path, "t", "mark"):
        for template in literals(call.args[0]) or () if call.args else ():
            yield template, call


@functools.cache
def constants() -> set[str]:
    """Names of constants whose texts are marked: they may be given to `t`."""
    found: set[str] = set()
    for path in MODULES:
        module = nodes(path)[0]
        for node in module.body if isinstance(module, ast.Module) else ():
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            if value is None or not any(
                isinstance(part, ast.Name) and part.id in ("mark", "t") for part in ast.walk(value)
            ):
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]  # type: ignore[union-attr]
            names = [part for target in targets for part in ast.walk(target)]
            found |= {part.id for part in names if isinstance(part, ast.Name)}
    return found


def root_names(node: ast.expr) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


@pytest.mark.parametrize("path", [path for path in MODULES if any(worded(path))], ids=relative)
def test_every_template_has_its_chinese_with_the_same_values(path: Path) -> None:
    templates = {template for template, _ in worded(path)}
    assert set() == templates - CHINESE.keys()
    assert [] == [text for text in templates if placeholders(text) != placeholders(CHINESE[text])]


@pytest.mark.parametrize("path", [path for path in MODULES if any(worded(path))], ids=relative)
def test_every_call_gives_the_values_of_its_template(path: Path) -> None:
    wrong = [
        (call.lineno, template)
        for template, call in worded(path)
        if isinstance(call.func, ast.Name)
        and call.func.id == "t"
        and not any(keyword.arg is None for keyword in call.keywords)
        and {keyword.arg for keyword in call.keywords} != placeholders(template)
    ]
    assert [] == wrong


def test_no_translation_is_stale() -> None:
    known = {template for path in MODULES for template, _ in worded(path)}
    assert set() == CHINESE.keys() - known


def bound_names(path: Path) -> set[str]:
    """Names that a module binds to a marked constant or a part of one: `word = WORDS.get(key)`."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.For | ast.comprehension) and root_names(node.iter) & constants():
            found |= root_names(node.target)
        if isinstance(node, ast.Assign) and root_names(node.value) & constants():
            found |= {name for target in node.targets for name in root_names(target)}
    return found


def is_marked(argument: ast.expr, names: set[str]) -> bool:
    """A marked constant, or the value of an enumeration, whose members are marked."""
    return bool(root_names(argument) & names) or (isinstance(argument, ast.Attribute) and argument.attr == "value")


@pytest.mark.parametrize("path", [path for path in MODULES if path != WORDS], ids=relative)
def test_t_gets_a_literal_or_a_marked_constant(path: Path) -> None:
    names = constants() | bound_names(path)
    others = [call for call in calls(path, "t") if not call.args or literals(call.args[0]) is None]
    assert [] == [call.lineno for call in others if not call.args or not is_marked(call.args[0], names)]


def unworded(path: Path) -> list[tuple[int, str]]:
    """Texts that a module hands to the document without `t`."""
    found = []
    for call in calls(path, *PARTS):
        for argument in call.args[: PARTS[call.func.id]]:  # type: ignore[attr-defined]
            text = ast.unparse(argument) if isinstance(argument, ast.JoinedStr) else "".join(literals(argument) or ())
            fixed = re.sub(r"\{[^{}]*\}", "", text) if isinstance(argument, ast.JoinedStr) else text
            if text not in UNITS and re.search(r"[a-z]{3}", fixed):
                found.append((call.lineno, text))
    return found


SECTIONS = sorted((SOURCE / "derive" / "report").glob("*.py"))


@pytest.mark.parametrize("path", SECTIONS, ids=relative)
def test_no_part_of_a_report_is_said_without_words(path: Path) -> None:
    assert [] == unworded(path)


def test_english_is_the_template_and_chinese_its_translation() -> None:
    assert "random weights" == t("random weights")
    with in_language("zh"):
        assert ("zh", "随机权重", "3 次重复") == (language(), t("random weights"), t("{n} repetitions", n=3))
    assert ("en", "3 repetitions") == (language(), t("{n} repetitions", n=3))
    assert ("en", "zh") == languages()


def test_a_text_without_a_translation_is_said_in_english() -> None:
    with in_language("zh"):
        assert "no such sentence of 7" == t("no such sentence of {n}", n=7)
        assert "a reason out of a driver {" == say("a reason out of a driver {")


def test_a_phrase_made_in_english_is_said_anew_with_its_values() -> None:
    reason = t("no ceiling was measured in this run")
    kept = t("Not told: {reason}.", reason=reason)
    assert "Not told: no ceiling was measured in this run." == kept
    with in_language("zh"):
        assert "未给出：本次运行没有测量任何上限。" == say(kept)
        assert "随机权重、n 3" == say(join([t("random weights"), "n 3"], COMMA))
    with in_language("zh"):
        chinese = t("random weights")
    assert "random weights" == say(chinese)


def test_an_error_and_a_copy_keep_what_a_phrase_remembers() -> None:
    reason = t("{n} repetitions", n=3)
    copies = (str(ValueError(reason)), copy.deepcopy(reason), pickle.loads(pickle.dumps(reason)))
    with in_language("zh"):
        assert ["3 次重复"] * 3 == [say(text) for text in copies]
    assert '"3 repetitions"' == json.dumps(reason)
    assert isinstance(reason, Phrase)


def test_join_is_english_where_english_is_spoken() -> None:
    assert "a, b" == join(["a", "b"])
    assert "a; b" == join(["a", "b"], SEMICOLON)
    assert "" == join([])


def test_the_language_ends_with_its_block_even_after_an_error() -> None:
    with pytest.raises(ValueError, match="within"), in_language("zh"):
        raise ValueError("within")
    assert "en" == language()


def test_an_unknown_language_names_those_there_are() -> None:
    with pytest.raises(SpecError) as caught, in_language("fr"):
        pass
    assert "unknown language 'fr'" in str(caught.value)
    assert "use one of: en, zh" in str(caught.value)


@pytest.mark.parametrize(
    ("files", "fault", "row"),
    [
        ({"a.yaml": "- no mapping"}, "not a mapping", None),
        ({"a.yaml": "one: 一\ntwo: 2"}, "the translation of 'two' is no text", "2"),
        ({"a.yaml": "one: 一\n'{n} of {m}': '{n}'"}, "want different values: ['m', 'n'], ['n']", "2"),
        ({"a.yaml": "'one {': '一 {'"}, "cannot be filled in", "1"),
        ({"a.yaml": "'one {}': '一 {}'"}, "a placeholder is a plain name", "1"),
        ({"a.yaml": "one: 一\none: 壹"}, "the key stands twice", "2"),
        ({"a.yaml": "one: 一", "b.yaml": "two: 二\none: 壹"}, "translated otherwise in zh/a.yaml", "2"),
    ],
    ids=["list", "number", "values", "brace", "unnamed", "twice", "two files"],
)
def test_a_wrong_catalogue_names_file_and_row(tmp_path: Path, files: dict[str, str], fault: str, row: str) -> None:
    folder = tmp_path / "zh"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_catalogue(folder)
    assert fault in str(caught.value)
    assert (f"zh/{sorted(files)[-1]}", row) == (caught.value.file, caught.value.row)


def test_the_same_translation_may_stand_in_two_files(tmp_path: Path) -> None:
    folder = tmp_path / "zh"
    folder.mkdir()
    for name in ("a.yaml", "b.yaml"):
        (folder / name).write_text("one: 一", encoding="utf-8")
    assert {"one": "一"} == read_catalogue(folder)


def test_a_folder_without_translations_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no translation is there"):
        read_catalogue(tmp_path / "zh")
