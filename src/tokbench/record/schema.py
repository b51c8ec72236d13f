"""Checks a config's keys and types; what is wrong is told with file, line, key and the nearest valid name."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from tokbench.record.complaint import Complaint, complain, models_in
from tokbench.record.secrets import is_secret_key, is_secret_value
from tokbench.record.spec import CellSpec, RunSpec
from tokbench.record.yaml_tree import Place, Plain, Tree

_Names: typing.TypeAlias = dict[str, typing.Union["_Names", None]]
T = typing.TypeVar("T", bound=BaseModel)

_OPEN: tuple[Place, ...] = (("labels",), ("engine", "options"), ("experiment", "options"), ("speculation", "options"))
"""Mappings whose keys are the user's or a plug's own."""


def _names_of(model: type[BaseModel]) -> _Names:
    names: _Names = {}
    for name, field in model.model_fields.items():
        parts = models_in(field.annotation)
        nested: _Names = {key: value for part in parts for key, value in _names_of(part).items()}
        names[name] = nested if parts else None
    return names


def known_names() -> _Names:
    """Every key that a config may hold, nested as in the file."""
    names = _names_of(RunSpec) | _names_of(CellSpec) | {"zip": None, "exclude": None}
    names.pop("hardware")
    return names


def check_keys(tree: Tree) -> None:
    """Refuse an unknown key, with the nearest valid one, and whatever looks like a secret.

    Raises:
        SpecError: file, line, key, nearest valid names.
    """
    _check_secrets(tree)

    def visit(value: Plain, names: _Names, place: Place) -> None:
        if isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, names, (*place, index))
        elif isinstance(value, dict):
            for key, child in value.items():
                check_name(key, names, (*place, key), tree)
                below = names[key]
                if below:
                    visit(child, below, (*place, key))

    visit(tree.value, known_names(), ())


def check_name(key: str, names: _Names, place: Place, tree: Tree) -> None:
    """Refuse one key that is not among `names`.

    Raises:
        SpecError: file, line, key, nearest valid names.
    """
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
        fix = f"did you mean `{near[0]}`?" if near else f"valid here: {', '.join(sorted(names))}"
        raise tree.fault("unknown key", place, fix=fix)


def check_path(path: str, tree: Tree, place: Place) -> None:
    """Refuse a dotted key, as `exclude` names it, that no config can hold.

    Raises:
        SpecError: the key, and the nearest valid one.
    """
    parts = tuple(path.split("."))
    names: _Names | None = known_names()
    for depth, part in enumerate(parts):
        if parts[:depth] in _OPEN:
            return
        known = names or {}
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1, cutoff=0.5)
            whole = ".".join((*parts[:depth], near[0], *parts[depth + 1 :])) if near else None
            fix = f"did you mean `{whole}`?" if whole else "write keys as they stand in the config, e.g. engine.mode"
            raise tree.fault(f"there is no key {path!r}", place, fix=fix)
        names = known[part]


def _check_secrets(tree: Tree) -> None:
    fix = "take it out and name the environment variable that holds it: `api_key_env: VAR`, or set HF_TOKEN"

    def visit(value: Plain, place: Place) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                if is_secret_key(key) and child is not None:
                    message = "a secret does not belong in a config: it would be kept in the record"
                    raise tree.fault(message, (*place, key), fix=fix)
                visit(child, (*place, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, (*place, index))
        elif isinstance(value, str) and is_secret_value(value):
            raise tree.fault("this looks like a secret: it would be kept in the record", place, fix=fix)

    visit(tree.value, ())


def validate(model: type[T], value: Mapping[str, Plain], tree: Tree) -> T:
    """Build one part of the spec.

    Raises:
        SpecError: the first thing that is wrong, and how many more there are.
    """
    try:
        return model.model_validate(dict(value))
    except ValidationError as error:
        complaints = complain(model, value, error.errors(include_url=False))
        first = complaints[0]
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        place = _find(tree.value, first) or first.place
        raise tree.fault(f"{first.message}{more}", place, fix=first.fix) from None


def _find(root: Plain, complaint: Complaint) -> Place | None:
    """The place in the file: through lists of objects, at the item that holds what was refused."""

    def search(value: Plain, place: Place) -> Place | None:
        if isinstance(value, list) and value != complaint.given:
            found = ((index, search(item, place)) for index, item in enumerate(value))
            return next(((index, *below) for index, below in found if below is not None), None)
        if not place:
            return () if value == complaint.given and type(value) is type(complaint.given) else None
        if not isinstance(value, dict) or not isinstance(place[0], str) or place[0] not in value:
            return None
        below = search(value[place[0]], place[1:])
        return None if below is None else (place[0], *below)

    return search(root, complaint.place)
