"""YAML as read: the scalars of 1.2, the line of every value, and every way in which a file can be wrong."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokbench.errors import SpecError
from tokbench.record.yaml_tree import MAX_BYTES, Plain, dump_tree, parse_tree, read_tree


def value_of(text: str) -> Plain:
    tree = parse_tree(f"key: {text}", "a.yaml")
    assert isinstance(tree.value, dict)
    return tree.value["key"]


def fault_of(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_tree(text, "a.yaml")
    assert caught.value.file == "a.yaml"
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("off", "off"),
        ("no", "no"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("true", True),
        ("False", False),
        ("1e3", 1000.0),
        ("1.5e-3", 0.0015),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1-8*2", "1-8*2"),
        (".inf", ".inf"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ('"1e3"', "1e3"),
        ("!!str 5", "5"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, expected: Plain) -> None:
    value = value_of(text)
    assert expected == value
    assert type(expected) is type(value)


def test_every_value_knows_its_line() -> None:
    tree = parse_tree("a: 1\nb:\n  c: 2\n  d:\n    - 3\n    - {e: 4}\n", "a.yaml")
    assert (1, 3, 4, 6) == (
        tree.line_of(("a",)),
        tree.line_of(("b", "c")),
        tree.line_of(("b", "d")),
        tree.line_of(("b", "d", 1, "e")),
    )


def test_what_is_missing_is_on_the_line_around_it() -> None:
    assert 2 == parse_tree("a: 1\nb:\n  c: 2\n", "a.yaml").line_of(("b", "nothing"))


def test_a_fault_names_file_line_and_key_and_leaves_list_indices_out() -> None:
    fault = parse_tree("a:\n  - b: 1\n", "a.yaml").fault("is wrong", ("a", 0, "b"), fix="mend it")
    assert "a.yaml:2: a.b: is wrong\n  fix: mend it" == str(fault)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key stands twice"),
        ("a:\n  b: 1\n  b: 2\n", 3, "the key stands twice"),
        ("a: 1\nb: !custom 2\n", 2, "tag '!custom' is not supported"),
        ("a: 1\nb: !custom {c: 1}\n", 2, "tag '!custom' is not supported"),
        ("a: 1\nb: !custom [1]\n", 2, "tag '!custom' is not supported"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "is not supported"),
        ("a: !!int abc\n", 1, "'abc' is not a number"),
        ("a: !!float abc\n", 1, "'abc' is not a number"),
        ("a: 1\nb: " + "9" * 5000, 2, "is too large"),
        ("a: 1e400\n", 1, "is too large"),
        ("? [1, 2]\n: 3\n", 1, "a key must be plain text"),
        ("a: 1\nb: [1, 2\n", 3, "not valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "not valid YAML"),
        ("a: *nobody\n", 1, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
        ("a: 1\nb: \x00\n", 2, "may not stand in a text file"),
        ('a: 1\nb: "x\\0"\n', 2, "control character"),
        ('a: 1\nb: "\\ud800"\n', 2, "control character"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_line(text: str, line: int, message: str) -> None:
    fault = fault_of(text)
    assert line == fault.line
    assert message in fault.message


def test_tabs_are_told_as_such() -> None:
    assert "indent with spaces, not tabs" == fault_of("a:\n\tb: 2\n").fix


def test_a_file_that_explodes_through_aliases_is_refused() -> None:
    rows = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    rows += [
        f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]" for before, after in zip("abcde", "bcdef", strict=True)
    ]
    assert "grows without bound" in fault_of("\n".join(rows)).message


def test_an_alias_to_itself_is_refused() -> None:
    assert "grows without bound" in fault_of("a: &a [*a]").message


@pytest.mark.parametrize("depth", [30, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    assert "nest" in fault_of("a: " + "[" * depth + "]" * depth).message


def test_aliases_that_do_not_explode_are_read() -> None:
    assert {"a": [1], "b": [1]} == parse_tree("a: &a [1]\nb: *a\n", "a.yaml").value


def refusal(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        read_tree(path)
    assert str(path) == caught.value.file
    assert caught.value.fix
    return caught.value.message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" == refusal(tmp_path / "none.yaml")


def test_a_folder(tmp_path: Path) -> None:
    assert "this is a folder, not a config file" == refusal(tmp_path)


def test_a_file_that_is_not_text_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: a\nmodel: é\n".encode("latin-1"))
    with pytest.raises(SpecError, match="not UTF-8") as caught:
        read_tree(path)
    assert 2 == caught.value.line


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert {"name": "a"} == read_tree(path).value


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("#" * (MAX_BYTES + 1), encoding="utf-8")
    assert "larger than" in refusal(path)


def test_a_source_without_end_is_not_read_to_its_end() -> None:
    assert "larger than" in refusal(Path("/dev/zero"))


def test_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text("a: 1\n", encoding="utf-8"))
    writer.start()
    assert {"a": 1} == read_tree(path).value
    writer.join()


def test_a_path_that_the_system_refuses() -> None:
    assert "cannot be read" in refusal(Path("/tmp", "a" * 300))


@pytest.mark.parametrize("text", ["1e3", "12e4", "1.5e3", "off", "010", "true", "~", "", "1-8*2", "a: b", "2024-01-01"])
def test_text_that_looks_like_something_else_stays_text_in_a_stored_config(text: str) -> None:
    assert {"labels": {text: text}} == parse_tree(dump_tree({"labels": {text: text}}), "stored").value


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12),
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,2})?e[+-]?[0-9]", fullmatch=True),
)
KEYS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)


@given(
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
    )
)
def test_a_stored_config_is_read_back_as_it_was(value: Plain) -> None:
    assert value == parse_tree(dump_tree(value), "stored").value
