"""The command that measures what an answer lacks: the run's own config, narrowed to one sweep and other loads."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from tokbench.derive.evaluate import CellResult
from tokbench.errors import SpecError
from tokbench.record.axes import find_axes
from tokbench.record.run import Run
from tokbench.record.store import CONFIG_FILE
from tokbench.record.yaml_tree import Place, Plain, read_tree

_PLAIN_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_./:-]*")
AGAIN_BLOCKS: Final = 7
"""Worker processes of a cell that is measured again: seven find a difference of 5 % (docs/design/statistics.md)."""


def command_at(run: Run, cell: CellResult, loads: Sequence[int]) -> str:
    """Measures the cell's sweep at other loads, in a run of its own; RUN is where the record lies."""
    return _command(run, cell, [_load(cell, list(loads))])


def command_again(run: Run, cell: CellResult) -> str:
    """Measures the cell itself in more processes and with more repetitions."""
    load = cell.record.spec.load
    users = load.concurrency if load.kind == "closed" else load.static_batch if load.kind == "static_batch" else None
    assert users is not None
    repetitions = max(2 * AGAIN_BLOCKS, 2 * len(cell.record.good_trials()))
    stop = [f"stop.max_repetitions={repetitions}", f"stop.blocks={AGAIN_BLOCKS}"]
    return _command(run, cell, [_load(cell, users), *stop])


def _command(run: Run, cell: CellResult, settings: Sequence[str]) -> str:
    chosen = (*_narrowing(run, cell), *settings)
    options = " ".join(f"--set {shlex.quote(one)}" for one in chosen)
    return f"tokbench run RUN/{CONFIG_FILE} {options}"


def _load(cell: CellResult, users: int | list[int]) -> str:
    load = cell.record.spec.load
    if load.kind == "closed":
        return f"load={json.dumps({'kind': 'closed', 'concurrency': users, 'requests': load.requests})}"
    return f"load={json.dumps({'static_batch': users})}"


def _narrowing(run: Run, cell: CellResult) -> Iterator[str]:
    """Settings that leave of each axis of the config what the cell has; rules over axes go with the axes."""
    try:
        tree = read_tree(run.folder / CONFIG_FILE)
        axes = find_axes(tree)
    except (OSError, SpecError):
        return
    spec = cell.record.spec.model_dump(mode="json", exclude_none=True)
    for axis in axes:
        if axis.place[0] != "load":
            yield f"{'.'.join(map(str, axis.place))}={_write(_at(spec, axis.place))}"
    for key in ("zip", "exclude"):
        if isinstance(tree.value, dict) and tree.value.get(key):
            yield f"{key}=[]"


def _at(root: Plain, place: Place) -> Plain:
    for name in place:
        if not isinstance(root, dict) or name not in root:
            return None
        root = root[str(name)]
    return root


def _write(value: Plain) -> str:
    is_word = isinstance(value, str) and _PLAIN_WORD.fullmatch(value) is not None
    return str(value) if is_word else json.dumps(value)
