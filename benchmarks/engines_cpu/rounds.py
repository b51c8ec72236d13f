"""Runs the rows: in each round every row once, each in a fresh process, in an order of the round's own.

Each row that ended, well or not, is one line of OUT/rows.jsonl before the next one starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines_cpu.readings import Reading, UnreadableError
from benchmarks.engines_cpu.rows import Places, Row
from tokbench.errors import TokbenchError

LIMIT_S = 400.0
TAIL = 600
STAMP = ".tokbench-peer"


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """One row in one round."""

    round: int
    position: int
    """Its place in the round's order."""
    row: str
    utc: str
    load_average: tuple[float, float, float]
    """When it started."""
    took_s: float
    command: list[str]
    reading: Reading | None
    reason: str | None
    """Why there is no reading."""

    def as_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def finished_of(line: str) -> Finished:
    """A line of rows.jsonl."""
    found: dict[str, Any] = json.loads(line)
    reading = None if found["reading"] is None else Reading(**found["reading"])
    return Finished(**{**found, "reading": reading, "load_average": tuple(found["load_average"])})


def read_finished(path: Path) -> list[Finished]:
    """What is on disk; a last line that was torn by a kill is left out and will be run again."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [finished_of(line) for line in whole]


def order_of(rows: Sequence[Row], number: int, seed: int) -> list[Row]:
    """The rows in the order of one round; the same for the same rows and seed."""
    return random.Random(f"{seed}/{number}").sample(list(rows), len(rows))


def run_rounds(
    rows: Sequence[Row], rounds: Iterable[int], seed: int, path: Path, start: Callable[[Row, int, int], Finished]
) -> list[Finished]:
    """Every row of every round that `path` does not hold yet; what is there afterwards."""
    done = read_finished(path)
    path.write_text("".join(f"{item.as_line()}\n" for item in done), encoding="utf-8")
    known = {(item.round, item.row) for item in done}
    for number in rounds:
        for position, row in enumerate(order_of(rows, number, seed)):
            if (number, row.name) not in known:
                found = start(row, number, position)
                with path.open("a", encoding="utf-8") as output:
                    output.write(f"{found.as_line()}\n")
                done.append(found)
    return done


def stamped_version(stamp: str) -> dict[str, str]:
    """What scripts/peers wrote when it had built a bench: `TOOL of PACKAGE VERSION, COMPILER` is its last line.

    Raises:
        UnreadableError: it has another form.
    """
    lines = stamp.splitlines()
    found = re.fullmatch(r"\S+ of (\S+) (\S+), .*", lines[-1]) if lines else None
    if found is None:
        raise UnreadableError(f"the stamp of the recipe tells no version: {stamp!r}")
    return {found[1]: found[2]}


class Starter:
    """Runs one row in a process of its own."""

    def __init__(self, places: Places, say: Callable[[str], None]) -> None:
        self._places = places
        self._say = say

    def __call__(self, row: Row, number: int, position: int) -> Finished:
        """Start it, wait, read what it said; a failure is a reason."""
        load, begun = os.getloadavg(), time.monotonic()
        utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with tempfile.TemporaryDirectory(prefix="engines-cpu-") as scratch:
            command = row.command(self._places, Path(scratch))
            reading, reason = self._measure(row, command, Path(scratch))
        took_s = time.monotonic() - begun
        if reason is not None:
            reason = self._told([".", reason], scratch)[1].replace(os.getcwd(), ".").replace(str(Path.home()), "~")
        known = ", ".join(f"{name} {values}" for name, values in reading.values.items()) if reading else reason
        self._say(f"round {number}, {row.name}: {took_s:.0f} s, load {load[0]:.2f}: {known}")
        return Finished(number, position, row.name, utc, load, took_s, self._told(command, scratch), reading, reason)

    def _measure(self, row: Row, command: list[str], scratch: Path) -> tuple[Reading | None, str | None]:
        environ = row.environment({**os.environ, "TOKBENCH_PEERS": str(self._places.peers)}, self._places.threads)
        try:
            code, said, complaint = run_limited(command, environ, scratch)
        except OSError as error:
            return None, f"cannot be started: {error.strerror} (scripts/peers builds it)"
        if code != 0:
            ended = f"longer than {LIMIT_S:.0f} s" if code is None else f"exit code {code}"
            return None, f"{ended}: {' '.join((complaint or said)[-TAIL:].split())}"
        try:
            reading = row.read(said, scratch)
            if row.recipe is not None:
                built = stamped_version((self._places.peers / row.recipe / STAMP).read_text(encoding="utf-8"))
                reading = dataclasses.replace(reading, versions=built)
            return reading, None
        except (UnreadableError, TokbenchError, KeyError, ValueError, OSError) as error:
            return None, f"{type(error).__name__}: {error}"

    def _told(self, command: list[str], scratch: str) -> list[str]:
        """The command without this machine's folders."""
        places = self._places
        names = ((scratch, "SCRATCH"), (places.peers, "PEERS"), (places.weights, "WEIGHTS"), (places.gguf, "FILE.gguf"))
        told = []
        for part in command:
            told.append(functools.reduce(lambda text, pair: text.replace(str(pair[0]), pair[1]), names, part))
        return [Path(told[0]).name if told[0].startswith("/") else told[0], *told[1:]]


def run_limited(command: list[str], environ: dict[str, str], scratch: Path) -> tuple[int | None, str, str]:
    """Exit code (None: it took too long and was ended with all that it started), stdout, stderr."""
    with (scratch / "stdout").open("wb") as out, (scratch / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ, start_new_session=True
        )
        try:
            code: int | None = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    texts = [(scratch / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr")]
    return code, texts[0], texts[1]
