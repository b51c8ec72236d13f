"""Words for what pydantic refuses: the place in the file, what should stand there, what to do. It checks nothing."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from tokbench.record.yaml_tree import Place

SEE_README = "see README.md, The config, for what may stand here"
_SHOWN = 60


@dataclasses.dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong."""

    place: Place
    message: str
    fix: str
    given: object


@dataclasses.dataclass(frozen=True, slots=True)
class _Trace:
    """Where pydantic's location leads: the place, the model around it, the union that it passed last."""

    place: Place
    owner: type[BaseModel] | None = None
    union_at: Place | None = None
    union: object = None
    is_in_model: bool = False
    """Whether the union's branch that failed is a mapping of keys."""


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The models that a field's annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if _is_union(annotation) or typing.get_origin(annotation) is typing.Annotated:
        return [model for part in typing.get_args(annotation) for model in models_in(part)]
    return []


def complain(model: type[BaseModel], value: Mapping[str, object], errors: Iterable[ErrorDetails]) -> list[Complaint]:
    """Every error in words; the branches of a union that was not meant are left out."""
    complaints: dict[Place, Complaint] = {}
    for error in errors:
        trace = _trace(model, error["loc"])
        if trace.union_at is not None and not trace.is_in_model:
            given = _get(value, trace.union_at)
            if not (isinstance(given, Mapping) and models_in(trace.union)):
                complaints.setdefault(trace.union_at, _one_of(trace.union_at, trace.union, given))
            continue
        complaints.setdefault(trace.place, _in_words(error, trace))
    return list(complaints.values())


def _trace(annotation: object, loc: tuple[int | str, ...], done: Place = ()) -> _Trace:
    """Follow pydantic's location through the types: it mixes names of union branches in."""
    if not loc:
        return _Trace(done)
    part, rest = loc[0], loc[1:]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        below = _trace(field.annotation, rest, (*done, part)) if field else _Trace((*done, part))
        return below if below.owner is not None else dataclasses.replace(below, owner=annotation)
    members = [member for member in typing.get_args(annotation) if member is not type(None)]
    if _is_union(annotation):
        return _trace(members[0], loc, done) if len(members) == 1 else _trace_union(annotation, loc, done)
    inner = members[-1] if typing.get_origin(annotation) is dict and members else members[0] if members else None
    return _trace(inner, rest, (*done, part))


def _trace_union(annotation: object, loc: tuple[int | str, ...], done: Place) -> _Trace:
    """The first part of the location names the branch: a tag, a model or a plain type."""
    tagged = next((model for model in models_in(annotation) if loc[0] in _tags(model)), None)
    if tagged is not None:
        return _trace(tagged, loc[1:], done)
    named = next((model for model in models_in(annotation) if model.__name__ == loc[0]), None)
    below = _trace(named, loc[1:], done) if named else _Trace(done)
    if below.union_at is not None:
        return below
    return dataclasses.replace(below, union_at=done, union=annotation, is_in_model=named is not None)


def _is_union(annotation: object) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _tags(model: type[BaseModel]) -> tuple[object, ...]:
    kind = model.model_fields.get("kind")
    is_literal = kind is not None and typing.get_origin(kind.annotation) is typing.Literal
    return typing.get_args(kind.annotation) if kind is not None and is_literal else ()


def _get(value: object, place: Place) -> object:
    for part in place:
        if isinstance(value, Mapping):
            value = value.get(part)
    return value


def _one_of(place: Place, union: object, given: object) -> Complaint:
    """What may stand where one of several types may."""
    words = [f"`{literal}`" for member in typing.get_args(union) for literal in typing.get_args(member)]
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    words += [text for kind, text in plain.items() if kind in typing.get_args(union)]
    words += [f"a mapping with {_listed(model.model_fields)}" for model in models_in(union)]
    wanted = f"{', '.join(words[:-1])} or {words[-1]}"
    literals = [word.strip("`") for word in words if word.startswith("`")]
    near = difflib.get_close_matches(given, literals, n=1, cutoff=0.5) if isinstance(given, str) else []
    return Complaint(place, f"should be {wanted}{_not(given)}", _meant(near) or SEE_README, given)


def _in_words(error: ErrorDetails, trace: _Trace) -> Complaint:
    kind, given, context = error["type"], error.get("input"), error.get("ctx", {})
    key = trace.place[-1] if trace.place else ""
    fields = list(trace.owner.model_fields) if trace.owner is not None else []
    if kind == "missing":
        return Complaint(trace.place, "a required key is missing", f"add `{key}: …`", given)
    if kind == "extra_forbidden":
        which = _tags(trace.owner) if trace.owner is not None else ()
        near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.6)
        fix = _meant(near) or f"valid here: {_listed(fields)}"
        return Complaint(trace.place, f"unknown key{f' for kind `{which[0]}`' if which else ''}", fix, given)
    if kind in ("literal_error", "union_tag_invalid"):
        wanted = str(context.get("expected") or context.get("expected_tags"))
        choices = [choice.strip(" '") for choice in wanted.replace(" or ", ", ").split(",")]
        tag = context.get("tag", given)
        near = difflib.get_close_matches(str(tag), choices, n=1, cutoff=0.5)
        place = (*trace.place, "kind") if kind == "union_tag_invalid" else trace.place
        message = f"should be {wanted if len(choices) == 1 else f'one of {wanted}'}{_not(tag)}"
        return Complaint(place, message, _meant(near) or SEE_README, tag)
    if kind == "value_error":
        message = str(context.get("error", error["msg"]))
        return Complaint(
            trace.place, f"{message}{_not(given)}" if isinstance(given, str) else message, SEE_README, given
        )
    if kind == "refused":
        return Complaint(trace.place, error["msg"], str(context["fix"]), given)
    fix = SEE_README
    if kind in ("model_type", "model_attributes_type") and fields:
        owner = models_in(trace.owner.model_fields[str(key)].annotation) if trace.owner and key in fields else []
        fix = f"keys here: {_listed(name for part in owner for name in part.model_fields)}" if owner else fix
    if kind == "string_type" and isinstance(given, Mapping | list):
        fix = "put quotes around text that holds `: `, or that ends in a colon or begins with a bracket"
    return Complaint(trace.place, f"{_wanted(kind, context, error['msg'])}{_not(given)}", fix, given)


def _wanted(kind: str, context: Mapping[str, object], message: str) -> str:
    texts = {
        "string_type": "should be text",
        "int_type": "should be a whole number",
        "int_from_float": "should be a whole number",
        "float_type": "should be a number",
        "finite_number": "should be a finite number",
        "bool_type": "should be true or false",
        "dict_type": "should be a mapping of keys",
        "model_type": "should be a mapping of keys",
        "model_attributes_type": "should be a mapping of keys",
        "tuple_type": "should be a list",
        "greater_than": f"should be greater than {_bound(context, 'gt')}",
        "greater_than_equal": f"should be {_bound(context, 'ge')} or more",
        "less_than": f"should be less than {_bound(context, 'lt')}",
        "less_than_equal": f"should be {_bound(context, 'le')} or less",
        "string_pattern_mismatch": "should begin with a letter or digit, go on with letters, digits, `.`, `_` and `-`, "
        "and have at most 64 of them",
    }
    return texts.get(kind, message[0].lower() + message[1:])


def _bound(context: Mapping[str, object], name: str) -> str:
    bound = context.get(name)
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _not(given: object) -> str:
    if given is None:
        return ", not empty"
    if isinstance(given, Mapping):
        return ", not a mapping"
    if isinstance(given, list | tuple):
        return ", not a list"
    if isinstance(given, bool):
        return f", not {str(given).lower()}"
    text = repr(given)
    return f", not {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}"


def _meant(near: list[str]) -> str | None:
    return f"did you mean `{near[0]}`?" if near else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))
