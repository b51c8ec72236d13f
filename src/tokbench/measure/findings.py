"""What one check of `tokbench doctor` found, and through what every check looks, so that tests put in their own.

Nothing here looks at anything itself.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from tokbench.measure.nvml import NvmlModule, load_nvml
from tokbench.measure.probe import Runner, run_child
from tokbench.record.facts import Frozen

Status = Literal["ok", "missing", "warning", "unknown"]


class Finding(Frozen):
    """One thing that can be measured here, or cannot, with what to do about it."""

    topic: str
    status: Status
    what: str
    remedy: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """The doors through which the checks look at this machine."""

    root: Path
    environ: Mapping[str, str]
    runner: Runner
    nvml: NvmlModule | None
    version_of: Callable[[str], str | None]
    """Installed version of a distribution, None where it is absent."""
    extra_of: Callable[[str], str | None]
    """The extra of tokbench that brings a distribution, None where none does."""
    which: Callable[[str], str | None]
    """Path of a program, None where it is not found."""
    free_disk_bytes: Callable[[Path], int | None]
    """Free bytes for an unprivileged user where a folder is or would be."""


def surroundings_here() -> Surroundings:
    """This machine as it is."""
    return Surroundings(
        root=Path("/"),
        environ=os.environ,
        runner=run_child,
        nvml=load_nvml(),
        version_of=_installed_version,
        extra_of=_bringing_extra,
        which=shutil.which,
        free_disk_bytes=_free_disk_bytes,
    )


def extra_in(requirements: list[str], distribution: str) -> str | None:
    """The extra whose requirement names the distribution; a development extra only where no other does."""
    wanted = _canonical(distribution)
    extras = []
    for requirement in requirements:
        match = re.match(r"\s*([\w.-]+).*;.*\bextra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        if match and _canonical(match[1]) == wanted:
            extras.append(match[2])
    return min(extras, key=lambda extra: extra == "dev", default=None)


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _bringing_extra(distribution: str) -> str | None:
    try:
        return extra_in(importlib.metadata.requires("tokbench") or [], distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _free_disk_bytes(path: Path) -> int | None:
    for folder in (path, *path.parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return None
