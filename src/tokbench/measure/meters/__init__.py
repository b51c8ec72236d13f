"""The socket of meters: sources of energy and power readings. One plug per source; read in the parent process."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from typing import Protocol, cast

from tokbench.errors import PlugError
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import EnergyReading, MeterOpened, PowerReading
from tokbench.record.spec import EnergySpec


@dataclasses.dataclass(frozen=True, slots=True)
class Available:
    """The meter can be read here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unavailable:
    """The meter cannot be read here, and what would help."""

    reason: str
    remedy: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class MeterDescription:
    """What a plug reads."""

    kind: str
    what: str
    scope: str
    """board | module | package | dram | node | wall | script: of most of its domains; `opened` tells each one's."""
    auto_for: tuple[str, ...] = ()
    """Kinds of device beside which `energy: auto` reads it; where there is none, a config has to name it."""
    is_of_card: bool = False
    """Whether each card of a split model needs one of its own."""


class Meter(Protocol):
    """One source of readings."""

    def availability(self) -> Available | Unavailable:
        """Whether it can be read here."""

    def opened(self) -> list[MeterOpened]:
        """Each domain that is read: its scope, its source, what a reader must know. May watch a counter for 2 s first.

        Raises:
            OSError, PlugError: as `read`.
        """

    def domains(self) -> tuple[str, ...]:
        """What it tells apart: cards, packages."""

    def read(self) -> list[EnergyReading | PowerReading]:
        """One reading of every domain, stamped on the monotonic clock. Never 0 for what was not read.

        A counter that wraps says at how many joules; one that gave no value is left out. A reading that shows a
        movement says how long it took (`read_s`): without it nothing bounds the error of the movement's time.

        Raises:
            OSError, PlugError: the source answers no longer; the run goes on without it. Whatever else a library raises
                is recorded in the same way, and is a fault of the plug.
        """

    def close(self) -> None:
        """Let go of the source."""


class MeterPlug(Protocol):
    """The module of a plug."""

    DESCRIPTION: MeterDescription

    def open_meter(self, device: DeviceFacts | None, spec: EnergySpec | None = None) -> Meter:
        """Open the source for a device, or for all that it finds where none is given.

        What it lacks is told by `availability`, not raised.
        """


def names() -> list[str]:
    """The meters that a config may name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_plug(kind: str) -> MeterPlug:
    """Import one plug.

    Raises:
        PlugError: no such meter.
    """
    known = names()
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise PlugError(f"energy.meters: there is no meter {kind!r}", fix=f"{hint}meters here: {', '.join(known)}")
    return cast(MeterPlug, importlib.import_module(f"{__name__}.{kind}"))
