"""The socket of experiments: named windows on an open engine that are not requests. One plug per kind."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Protocol, cast, runtime_checkable

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine
from tokbench.record.observations import Event
from tokbench.record.spec import CellSpec, ExperimentSpec


class ExperimentPlug(Protocol):
    """The module of a plug."""

    DESCRIPTION: str

    def run(self, engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[Event]:
        """One repetition: a point per setting, each timed with the device idle at both ends; the engine ends rewound.

        Raises:
            PlugError: an option that it does not know, or an engine that cannot do this.
        """


@runtime_checkable
class CheckedPlug(Protocol):
    """A plug that tells what is wrong with its options before any device is touched."""

    def check(self, spec: ExperimentSpec, cell: CellSpec) -> None:
        """Look at the options, and at what of the cell they must suit.

        Raises:
            PlugError: an option that it does not know or cannot take, or a cell that it cannot work on.
            SpecError: something that it is to read is not there.
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


def check_experiment(cell: CellSpec) -> None:
    """Refuse, before any device is touched, an experiment that is not there or that its plug cannot run as asked.

    Raises:
        PlugError: no such experiment, options that it cannot take, or a load of requests, beside which none is run.
        SpecError: something that it is to read is not there.
    """
    if cell.experiment == "none":
        return
    plug = load_plug(cell.experiment.kind)
    if cell.load.kind != "static_batch":
        raise PlugError(
            f"experiment.kind: {cell.experiment.kind} runs in a cell with a static batch, and load.kind is "
            f"{cell.load.kind}: it would be left out without a word",
            fix="load: {kind: static_batch, static_batch: 1}, or experiment: none",
        )
    if isinstance(plug, CheckedPlug):
        plug.check(cell.experiment, cell)
