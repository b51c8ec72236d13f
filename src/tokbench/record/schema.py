"""Checks a config's keys and types, and words what is wrong with file, line, key and the nearest valid name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from tokbench.errors import SpecError
from tokbench.record.spec import CellSpec, RunSpec
from tokbench.record.yaml_tree import Place, Plain, Tree

_Names: typing.TypeAlias = dict[str, typing.Union["_Names", None]]
T = typing.TypeVar("T", bound=BaseModel)


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _names_of(model: type[BaseModel]) -> _Names:
    names: _Names = {}
    for name, field in model.model_fields.items():
        parts = _models_in(field.annotation)
        nested: _Names = {key: value for part in parts for key, value in _names_of(part).items()}
        names[name] = nested if parts else None
    return names


def known_names() -> _Names:
    """Every key that a config may hold, nested as in the file."""
    names = _names_of(RunSpec) | _names_of(CellSpec) | {"zip": None, "exclude": None}
    names.pop("hardware")
    return names


def check_keys(tree: Tree) -> None:
    """Refuse an unknown key, with the nearest valid one.

    Raises:
        SpecError: file, line, key, nearest valid names.
    """

    def visit(value: Plain, names: _Names, place: Place) -> None:
        if isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, names, (*place, index))
        elif isinstance(value, dict):
            for key, child in value.items():
                if key not in names:
                    _refuse(key, names, (*place, key), tree)
                below = names[key]
                if below:
                    visit(child, below, (*place, key))

    visit(tree.value, known_names(), ())


def _refuse(key: str, names: _Names, place: Place, tree: Tree) -> typing.NoReturn:
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    fix = f"did you mean `{near[0]}`?" if near else f"valid here: {', '.join(sorted(names))}"
    raise SpecError("unknown key", file=tree.file, line=tree.line_of(place), key=dotted(place), fix=fix)


def dotted(place: Place) -> str:
    """A place as a user writes it, list indices left out."""
    return ".".join(str(part) for part in place if isinstance(part, str))


def validate(model: type[T], value: Mapping[str, Plain], tree: Tree) -> T:
    """Build one part of the spec.

    Raises:
        SpecError: the first thing that is wrong, and how many more there are.
    """
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        place = _place_in_file(first["loc"], value)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SpecError(
            f"{_word(first['type'], first['msg'], first.get('input'))}{more}",
            file=tree.file,
            line=tree.line_of(place),
            key=dotted(place),
            fix="add the key" if first["type"] == "missing" else "see README.md, The config, for what may stand here",
        ) from None


def _place_in_file(loc: tuple[int | str, ...], value: Plain | Mapping[str, Plain]) -> Place:
    """Pydantic's location without the union tags it mixes in."""
    place: list[str | int] = []
    here: object = value
    for index, part in enumerate(loc):
        if isinstance(here, Mapping) and part in here:
            here = here[part]
        elif not (isinstance(here, Mapping) and index == len(loc) - 1):
            continue
        place.append(part)
    return tuple(place)


def _word(kind: str, message: str, given: object) -> str:
    if kind == "missing":
        return "a required key is missing"
    text = message[0].lower() + message[1:]
    return f"{text}, not {given!r}" if isinstance(given, str | int | float | bool) else text
