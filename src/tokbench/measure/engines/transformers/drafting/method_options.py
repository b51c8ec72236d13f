"""What `speculation.options` may say to a method. Unknown keys and values of another type are refused."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from tokbench.errors import PlugError
from tokbench.record.spec import SpeculationSpec


def refuse_unknown(spec: SpeculationSpec, known: Mapping[str, str]) -> None:
    """Refuse options that a method does not know; `known`: their names, and what each is in words.

    Raises:
        PlugError: the nearest name.
    """
    for key in spec.options:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        said = "; ".join(f"{name}: {what}" for name, what in known.items()) or "it has none"
        raise PlugError(
            f"speculation.options: method {spec.method!r} has no option {key!r}", fix=f"{hint}options: {said}"
        )


def refuse_draft(spec: SpeculationSpec) -> None:
    """Refuse a model that drafts where the method has no use for one.

    Raises:
        PlugError: which methods have one.
    """
    if spec.draft is not None:
        raise PlugError(
            f"speculation.draft: method {spec.method!r} needs no model that drafts",
            fix="leave it out, or speculation.method: draft_model",
        )


def read_count(spec: SpeculationSpec, name: str, default: int | None = None) -> int:
    """A whole number above 0.

    Raises:
        PlugError: it is missing and has no default, or is something else.
    """
    found = spec.options.get(name, default)
    if found is None:
        raise PlugError(f"speculation.options.{name}: method {spec.method!r} needs it", fix=f"options: {{{name}: 2}}")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise PlugError(f"speculation.options.{name}: {found!r} is not a whole number above 0", fix=f"{name}: 2")
    return found
