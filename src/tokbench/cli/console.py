"""What a run shows while it goes on: a live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import contextlib
import os
import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from tokbench.measure.plan import PlannedCell
from tokbench.record.spec import CellSpec
from tokbench.units import format_number


class RunConsole(Console):
    """Where a run prints. A reader that goes away, as in `| head`, costs the lines and not the run."""

    def on_broken_pipe(self) -> None:
        """Let what is left go nowhere; rich would end the program."""
        self.quiet = True
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ConsoleProgress:
    """Shows cell i of n, the time left, the speed just seen and the share of the roofline."""

    def __init__(self, console: Console, budget_s: float, device_name: str) -> None:
        self._console = console
        self._device = device_name
        self._ceilings: dict[str, float] = {}
        self._eta_s = budget_s
        self._live: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ConsoleProgress:
        if self._console.is_terminal:
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TimeElapsedColumn(),
                TextColumn("{task.fields[state]}"),
                console=self._console,
                transient=True,
            )
            self._live.start()
            self._task = self._live.add_task("starting", total=None, state="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def know_ceiling(self, dtype: str, read_bytes_per_s: float) -> None:
        """Remember the measured ceiling for the share that is shown."""
        self._ceilings[dtype] = read_bytes_per_s

    def expect(self, eta_s: float) -> None:
        """Seconds until the end, roughly."""
        self._eta_s = eta_s

    def note(self, text: str) -> None:
        """One plain sentence."""
        self._console.print(escape(text), highlight=False)

    def open_group(self, text: str) -> None:
        """Weights are being loaded."""
        self._show(f"loading {text}", "")
        if self._live is None:
            self.note(f"loading {text}")

    def begin_cell(self, number: int, cells: int, block: int, cell: PlannedCell) -> None:
        """A cell's turn."""
        what = f"block {block}, cell {number} of {cells}: {say_cell(cell.cell.spec)}"
        self._show(what, f"on {self._device}, {self._left()}")
        if self._live is None:
            self.note(f"{what}, {self._left()} on {self._device}")

    def end_trial(self, cell: PlannedCell, rate: float | None, repetitions: int) -> None:
        """A repetition is finished."""
        if rate is None:
            return
        ceiling, size = self._ceilings.get(cell.cell.spec.model.dtype), cell.step_bytes
        is_plain = cell.cell.spec.speculation == "none"  # with drafts a pass gives several tokens
        share = f", {rate * size / ceiling:.0%} of the roofline" if is_plain and ceiling and size else ""
        text = f"{format_number(rate)} tokens/s per user{share} (repetition {repetitions})"
        if self._live is not None and self._task is not None:
            self._live.update(self._task, state=f"{text}, {self._left()}")
        else:
            self.note(f"  {text}")

    def end_block(self, block: int, left_s: float) -> None:
        """A block is on disk."""
        self.note(f"block {block} done, {max(left_s, 0):.0f} s of the budget left")

    def _left(self) -> str:
        return f"about {max(self._eta_s, 0):.0f} s to go"

    def _show(self, description: str, state: str) -> None:
        if self._live is not None and self._task is not None:
            self._live.update(self._task, description=escape(description), state=escape(state))


def say_cell(spec: CellSpec) -> str:
    """A cell in a few words."""
    load = spec.load
    if load.kind == "static_batch":
        size = f"batch {load.static_batch}"
    elif load.kind == "closed":
        size = f"concurrency {load.concurrency}"
    else:
        size = f"{load.rate_per_s:g} requests/s"
    prompt = f"prompt {spec.workload.prompt_tokens}" if spec.workload.prompt_tokens is not None else spec.workload.kind
    task = "" if spec.workload.task is None else f" of {spec.workload.task}"
    drafting = spec.speculation
    drafts = "" if drafting == "none" else f", drafts by {drafting.method}, gamma {drafting.gamma}"
    experiment = "" if spec.experiment == "none" else f", {spec.experiment.kind}"
    asked = f"{prompt}{task} + {spec.workload.output_tokens} tokens"
    return f"{spec.engine.mode}, {size}, {asked}{drafts}{experiment}"
