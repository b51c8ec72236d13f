"""Which interpreter holds an engine's packages: the one that runs, or one of an environment of its own.

It asks other interpreters for versions and imports nothing of what they hold; they come about as docs/design/peers.md
says.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tokbench.errors import PlugError
from tokbench.record.spec import EngineSpec

VARIABLE = "TOKBENCH_PEERS"
"""Names the folder with one environment per engine, as `scripts/peers` builds them."""
FOLDER = Path(".peers")
"""That folder where the variable is not set, beside the current directory."""
STAMP = ".tokbench-peer"
"""What `scripts/peers` leaves in an environment that it has built; while it is there and current it builds nothing."""
OURS = ("tokbench", "pydantic", "psutil")
"""What a worker imports in whichever interpreter; `scripts/peers` installs it beside the engine."""
ASK_S = 60.0
"""A cold start of Python on a busy machine takes seconds."""
ASK = (
    "import json, sys\n"
    "from importlib.metadata import PackageNotFoundError, version\n"
    "found = {}\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n"
    "        found[name] = version(name)\n"
    "    except PackageNotFoundError:\n"
    "        found[name] = None\n"
    "print(json.dumps(found))\n"
)


class Environment(NamedTuple):
    """An interpreter and what of an engine's packages it has."""

    python: Path
    is_own: bool
    """Whether it is another one than the one that runs."""
    versions: Mapping[str, str | None]
    """By distribution; None where it is not installed. Of another interpreter those too that a worker needs."""

    @property
    def missing(self) -> list[str]:
        """Distributions that are not installed there."""
        return [name for name, version in self.versions.items() if version is None]


def find_environment(
    spec: EngineSpec, packages: Sequence[str], environ: Mapping[str, str] = os.environ, here: Path = Path()
) -> Environment:
    """Where an engine would run: `engine.python`, else here if all is installed here, else its own environment.

    Where there is none of these it is the running interpreter, with what it lacks.

    Raises:
        PlugError: the interpreter that the config or the folder names cannot be run.
    """
    if spec.python is not None:
        return _other(Path(spec.python).expanduser(), packages)
    running = Environment(Path(sys.executable), False, {name: installed_version(name) for name in packages})
    if not running.missing:
        return running
    folder = Path(environ[VARIABLE]).expanduser() if environ.get(VARIABLE) else here / FOLDER
    python = folder / spec.kind / "bin" / "python"
    return _other(python, packages) if python.exists() else running


def how_to_complete(environment: Environment, kind: str, *, has_recipe: bool) -> str:
    """What to do about packages that another interpreter lacks. tokbench comes from a checkout, never from an index."""
    python, missing = environment.python, environment.missing
    commands = []
    if others := [name for name in missing if name != "tokbench"]:
        commands.append(f"{python} -m pip install {' '.join(others)}")
    if "tokbench" in missing:
        commands.append(f"{python} -m pip install --no-deps -e . (in tokbench's checkout)")
    by_hand = " and ".join(commands)
    if not has_recipe:
        return by_hand
    stamp = python.parent.parent / STAMP
    return f"scripts/peers {kind}{f' once {stamp} is removed' if stamp.exists() else ''}, or {by_hand}"


def installed_version(distribution: str) -> str | None:
    """The version of a distribution in the running interpreter, None where it is absent."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _other(python: Path, packages: Sequence[str]) -> Environment:
    # Not resolved: a virtual environment's interpreter is a link, and finds its packages by the link's place.
    absolute = Path(os.path.abspath(python))
    return Environment(absolute, True, _versions_in(absolute, tuple(dict.fromkeys((*packages, *OURS)))))


@functools.cache
def _versions_in(python: Path, packages: tuple[str, ...]) -> Mapping[str, str | None]:
    """Ask another interpreter; once for all cells of a run."""
    command = [str(python), "-c", ASK, *packages]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=ASK_S, cwd=python.parent)
        found: dict[str, str | None] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise PlugError(
            f"engine.python: {python} is no Python that can be asked for its packages: {said}",
            fix="name a python >= 3.11 in which the engine and tokbench are installed; scripts/peers NAME builds one",
        ) from None
    return found
