"""Reads a YAML file into plain values that remember their lines. It knows nothing of tokbench's keys.

YAML 1.2 core scalars only (`off` and `no` are text, `1e3` is a number); duplicate keys, custom tags and files that
explode through aliases are refused. What `dump_tree` writes is read back as it was.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import yaml

from tokbench.errors import SpecError

Plain: TypeAlias = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None
Place: TypeAlias = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
MAX_DEPTH = 20
MAX_DIGITS = 30
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class _CoreLoader(yaml.SafeLoader):
    """PyYAML with the scalars of YAML 1.2's core schema instead of 1.1's."""


class _CoreDumper(yaml.SafeDumper):
    """PyYAML that also quotes text which YAML 1.2 alone takes for a number, such as `1e3`."""


class _PackageLoader(yaml.CSafeLoader):
    """The same by libyaml: several times as fast, with faults worded otherwise."""


_CoreLoader.yaml_implicit_resolvers = _PackageLoader.yaml_implicit_resolvers = {}
_CoreDumper.yaml_implicit_resolvers = copy.deepcopy(yaml.SafeDumper.yaml_implicit_resolvers)
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    for _resolver in (_CoreLoader, _CoreDumper):
        _resolver.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def dotted(place: Place) -> str:
    """A place as a user writes it, list indices left out."""
    return ".".join(part for part in place if isinstance(part, str))


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """A YAML document as plain values, with the line of every value."""

    value: Plain
    lines: dict[Place, int]
    file: str
    overrides: Mapping[Place, str] = dataclasses.field(default_factory=dict)
    """Places that something other than the file wrote, and what: `--set a.b`."""

    def fault(self, message: str, place: Place, *, fix: str | None = None) -> SpecError:
        """What is wrong at a place: names the file and line, or the override that wrote it."""
        for end in range(len(place), 0, -1):
            source = self.overrides.get(place[:end])
            if source is not None:
                key = None if source.endswith(f" {dotted(place)}") else dotted(place)
                return SpecError(message, file=source, key=key, fix=fix)
        return SpecError(message, file=self.file, line=self.line_of(place), key=dotted(place) or None, fix=fix)

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
                fix=f"keep it below {MAX_NODES} values and {MAX_DEPTH} levels; put a long list into several files",
            )
        self.lines.setdefault(place, line)
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, "map")
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
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
                where = dotted((*place, key))
                raise SpecError("the key stands twice", file=self.file, line=line, key=where, fix="keep one of the two")
            result[key] = self.build(value_node, (*place, key))
            self.lines[(*place, key)] = line
        return result

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            line = node.start_mark.line + 1
            raise SpecError(f"tag {node.tag!r} is not supported", file=self.file, line=line, fix="write a plain value")

    def _scalar(self, node: yaml.Node, line: int) -> Plain:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "str" and _CONTROL.search(text):
            fault = "text with a control character or half a character"
            raise SpecError(fault, file=self.file, line=line, fix="write it without")
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "str":
            return text
        if kind not in ("int", "float"):
            self._check_tag(node, "str")
        try:
            number = int(text[: MAX_DIGITS + 1]) if kind == "int" else float(text)
        except ValueError:
            raise SpecError(f"{text[:MAX_DIGITS]!r} is not a number", file=self.file, line=line) from None
        if (kind == "int" and len(text) > MAX_DIGITS) or not math.isfinite(number):
            raise SpecError(f"the number {text[:MAX_DIGITS]} is too large", file=self.file, line=line)
        return number


def parse_tree(text: str, file: str, *, is_packaged: bool = False) -> Tree:
    """Parse YAML text; `file` is the name used in errors. `is_packaged`: a data file of ours, hundreds of rows long.

    Raises:
        SpecError: it does not parse, explodes, or is not a mapping's worth of plain values.
    """
    try:
        node = yaml.compose(text, Loader=_PackageLoader if is_packaged else _CoreLoader)
        builder = _Builder(file)
        value = builder.build(node, ()) if node is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = " ".join(part for part in (error.context, error.problem) if part)
        fix = "indent with spaces, not tabs" if r"'\t'" in problem else "mend the syntax there"
        raise SpecError(f"not valid YAML: {problem}", file=file, line=line, fix=fix) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        fault = f"not valid YAML: the character {chr(error.character)!r} may not stand in a text file"
        raise SpecError(fault, file=file, line=line, fix="remove it") from None
    except yaml.YAMLError as error:
        raise SpecError(f"not valid YAML: {error}", file=file) from None
    except RecursionError:
        raise SpecError("the file nests too deeply", file=file, fix=f"keep it below {MAX_DEPTH} levels") from None
    return Tree(value, builder.lines, file)


def dump_tree(value: Plain) -> str:
    """Plain values as YAML text that `parse_tree` reads back as they were."""
    return yaml.dump(value, Dumper=_CoreDumper, sort_keys=False, allow_unicode=True)


def read_tree(path: Path) -> Tree:
    """Read a YAML file.

    Raises:
        SpecError: the file is missing, unreadable, too large, or not YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # no more: it may be a pipe or a device
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError(
            "no such file", file=str(path), fix="give the path of a config, e.g. configs/smoke.yaml"
        ) from None
    except IsADirectoryError:
        fix = "name a file in it, e.g. configs/smoke.yaml"
        raise SpecError("this is a folder, not a config file", file=str(path), fix=fix) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError("the file is not UTF-8 text", file=str(path), line=line, fix="save it as UTF-8") from None
    except OSError as error:
        fix = "look at its permissions and its path"
        raise SpecError(f"cannot be read: {error.strerror}", file=str(path), fix=fix) from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"the file is larger than {MAX_BYTES} bytes", file=str(path), fix="a config is a page of text")
    return parse_tree(text, str(path))
