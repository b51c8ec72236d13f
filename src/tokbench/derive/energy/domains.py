"""Which domains of which meters make one row, and which row speaks for a cell. Only like is added to like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tokbench.derive.disturbances import is_gpu
from tokbench.derive.repetitions import UndefinedError
from tokbench.derive.words import t
from tokbench.record.observations import MeterOpened
from tokbench.record.run import CellRecord, Run

GPU_SCOPES: Final = ("boards", "board", "module", "node", "wall", "script")
CPU_SCOPES: Final = ("node part", "package", "module", "node", "wall", "script")
"""What speaks for a cell, first come first: what is nearest to the device that did the work. A package beside a GPU is
no energy of the GPU, and DRAM alone none of the CPU."""


class Group(NamedTuple):
    """One domain, or several of one meter that add up; `scope` says what they cover."""

    scope: str
    domains: tuple[MeterOpened, ...]

    @property
    def meter(self) -> str:
        """The meter that all of them are of."""
        return self.domains[0].meter

    @property
    def name(self) -> str:
        """The domains, as the meter names them."""
        return " + ".join(domain.domain for domain in self.domains)


PARTS = ("hwmon_power_part", "hwmon_ina3221_rail")
"""Sources that tell a part of something: a row of their own, never added up, never what speaks for a cell."""


def find_groups(run: Run, cell: CellRecord) -> list[Group]:
    """Every domain by itself, package and DRAM of one meter together, and the boards of a model that is split."""
    opened = list({(item.meter, item.domain): item for item in run.meters}.values())
    groups = [Group(item.scope, (item,)) for item in opened]
    for meter in dict.fromkeys(item.meter for item in opened):
        mine = [item for item in opened if item.meter == meter]
        part = tuple(item for item in mine if item.scope in ("package", "dram") and item.source not in PARTS)
        if len(part) > 1 and any(item.scope == "package" for item in part):
            groups.append(Group("node part", part))
        boards = tuple(item for item in mine if item.scope == "board")
        if len(boards) == cell.spec.device_count > 1:
            groups.append(Group("boards", boards))
    return groups


def rank_groups(run: Run, cell: CellRecord, groups: Sequence[Group]) -> list[Group]:
    """The groups that may speak for a cell, the best first: by scope, sensed before estimated, as they were opened.

    Raises:
        UndefinedError: none covers the device that did the work.
    """
    scopes = GPU_SCOPES if is_gpu(run.device) else CPU_SCOPES
    fitting = [group for group in groups if group.scope in scopes and _covers(run, cell, group)]
    if not fitting:
        metered = ", ".join(f"{group.name} ({group.meter}, {group.scope})" for group in groups)
        if (count := cell.spec.device_count) == 1:
            raise UndefinedError(t("no meter covers the device that did the work; metered: {metered}", metered=metered))
        raise UndefinedError(
            t(
                "no meter covers the {count} devices that held the model; metered: {metered}",
                count=count,
                metered=metered,
            )
        )
    return sorted(fitting, key=lambda group: (scopes.index(group.scope), _is_estimated(group)))


def _is_estimated(group: Group) -> bool:
    return any(domain.is_estimated for domain in group.domains)


def _covers(run: Run, cell: CellRecord, group: Group) -> bool:
    """Whether the one board or module of a group is that of the cell; what has no UUID is taken to be."""
    if any(domain.source in PARTS for domain in group.domains):
        return False
    if group.scope == "package":  # one of two sockets is no machine
        packages = {found.domain for found in run.meters if found.meter == group.meter and found.scope == "package"}
        return len(packages) == 1
    if group.scope not in ("board", "module"):
        return True
    theirs, ours = group.domains[0].device_uuid, run.device.uuid if run.device is not None else None
    return cell.spec.device_count == 1 and (theirs is None or ours is None or theirs == ours)
