"""The socket of experiments: named windows on an open engine that are not requests. One plug per kind."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Protocol, cast

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine
from tokbench.record.observations import Event
from tokbench.record.spec import ExperimentSpec


class ExperimentPlug(Protocol):
    """The module of a plug."""

    DESCRIPTION: str

    def run(self, engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[Event]:
        """One repetition: a point per setting, each timed with the device idle at both ends; the engine ends rewound.

        Raises:
            PlugError: an option that it does not know, or an engine that cannot do this.
        """


def names() -> list[str]:
    """The experiments that a config may name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_plug(kind: str) -> ExperimentPlug:
    """Import one plug.

    Raises:
        PlugError: no such experiment.
    """
    known = names()
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise PlugError(f"experiment.kind: there is no experiment {kind!r}", fix=f"{hint}known: {', '.join(known)}")
    return cast(ExperimentPlug, importlib.import_module(f"{__name__}.{kind}"))
