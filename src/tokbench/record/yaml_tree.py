"""Reads a YAML file into plain values that remember their lines. It knows nothing of tokbench's keys.

YAML 1.2 core scalars only (`off` and `no` are text, `1e3` is a number); duplicate keys, custom tags and files that
explode through aliases are refused.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TypeAlias

import yaml

from tokbench.errors import SpecError

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
Place: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
MAX_DEPTH = 20


class _CoreLoader(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2's core schema instead of 1.1's."""


_CoreLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """A YAML document as plain values, with the line of every value."""

    value: Plain
    lines: dict[Place, int]
    file: str

    def line_of(self, place: Place) -> int | None:
        """The line of the value at `place`, or of the nearest value around it."""
        for end in range(len(place), -1, -1):
            if place[:end] in self.lines:
                return self.lines[place[:end]]
        return None


class _Builder:
    """Turns composed nodes into plain values; one instance per document."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Place, int] = {}
        self.nodes = 0

    def build(self, node: yaml.Node, place: Place) -> Plain:
        line = node.start_mark.line + 1
        self.nodes += 1
        if self.nodes > MAX_NODES or len(place) > MAX_DEPTH:
            raise SpecError(
                "the file grows without bound through aliases or nesting",
                file=self.file,
                line=line,
                fix=f"keep it below {MAX_NODES} values and {MAX_DEPTH} levels",
            )
        self.lines.setdefault(place, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*place, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, line)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Plain]:
        result: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise SpecError("a key must be plain text", file=self.file, line=line)
            if key in result:
                raise SpecError("the key stands twice", file=self.file, line=line, key=key, fix="keep one of the two")
            result[key] = self.build(value_node, (*place, key))
            self.lines[(*place, key)] = line
        return result

    def _scalar(self, node: yaml.Node, line: int) -> Plain:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "str":
            return text
        raise SpecError(f"tag {node.tag!r} is not supported", file=self.file, line=line, fix="write a plain value")


def parse_tree(text: str, file: str) -> Tree:
    """Parse YAML text; `file` is the name used in errors.

    Raises:
        SpecError: it does not parse, explodes, or is not a mapping's worth of plain values.
    """
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
        builder = _Builder(file)
        value = builder.build(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise SpecError(f"not valid YAML: {error.problem}", file=file, line=line, fix="mend the syntax there") from None
    except yaml.YAMLError as error:
        raise SpecError(f"not valid YAML: {error}", file=file) from None
    except RecursionError:
        raise SpecError("the file nests too deeply", file=file, fix=f"keep it below {MAX_DEPTH} levels") from None
    return Tree(value, builder.lines, file)


def read_tree(path: Path) -> Tree:
    """Read a YAML file.

    Raises:
        SpecError: the file is missing, unreadable, too large, or not YAML.
    """
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise SpecError(f"the file is larger than {MAX_BYTES} bytes", file=str(path))
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            "no such file", file=str(path), fix="give the path of a config, e.g. configs/smoke.yaml"
        ) from None
    except IsADirectoryError:
        raise SpecError("this is a folder, not a config file", file=str(path)) from None
    except UnicodeDecodeError:
        raise SpecError("the file is not UTF-8 text", file=str(path)) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file=str(path)) from None
    return parse_tree(text, str(path))
