"""`tokbench claims --run`: what this machine can measure of what the verdicts lack, one config after the other.

The configs are those that the claims themselves name. It measures through `tokbench run` and judges nothing.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console

from tokbench.cli import running
from tokbench.cli.claiming import AskedClaims, judge_asked, show_claims
from tokbench.cli.console import RunConsole
from tokbench.cli.fetching import resolver
from tokbench.cli.naming import check_names
from tokbench.cli.reporting import refuse_twice
from tokbench.derive.claims.verdicts import ClaimVerdict
from tokbench.errors import ExitCode, NotFetchedError, RecordError, TokbenchError
from tokbench.measure.plan import Plan, bind
from tokbench.record.run import read_run
from tokbench.record.store import EVENTS_FILE, read_header
from tokbench.record.sweep import Config, read_config

RUN_COMMAND = re.compile(r"tokbench run (\S+\.yaml)")
DEFAULT_OUT = Path("runs") / "claims"
LARGE_GPU, GPUS = "-h200", ("cuda", "rocm")
"""How configs end that are made for one large GPU: some of their cells may fit a CPU, none that a claim asks for."""
STOPPED = (ExitCode.INTERRUPTED, ExitCode.TERMINATED)


class WantedRun(NamedTuple):
    """How what is missing is to be measured."""

    out: Path = DEFAULT_OUT
    """One record for each config, in folders of their names."""
    is_agreed: bool = False
    """Whether nobody needs to be asked."""
    as_json: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One config: what it would feed, and whether it can run here."""

    config: Path
    claims: tuple[str, ...]
    """Claims that lack something which it measures."""
    out: Path
    cells: int | None = None
    """None where the weights have to be fetched before there can be a plan."""
    seconds: float | None = None
    """What it takes at most, beside fetching; None where its config cannot be read, or is done."""
    refusal: str | None = None
    is_begun: bool = False
    is_done: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether there is something left to run that can run here."""
        return self.refusal is None and not self.is_done


def run_missing(runs: Sequence[Path], asked: AskedClaims, wanted: WantedRun) -> tuple[ExitCode, tuple[Path, ...]]:
    """Plan, run and judge: the code, and the records that the verdicts rest on: those named, and those in `out`.

    Raises:
        SpecError, RecordError, DataError, PlugError: as `tokbench claims`, and where a record is of another config.
    """
    console = RunConsole(stderr=wanted.as_json, soft_wrap=True)
    refuse_twice(runs)
    steps = plan_steps(judge_asked(runs, asked), wanted.out, console)
    print_steps(steps, console)
    code = ExitCode.OK
    if is_agreed(steps, console, is_said=wanted.is_agreed):
        code = run_steps(steps, console)
    if code in STOPPED:
        return code, tuple(runs)
    known = {folder.resolve() for folder in runs}
    records = [folder for folder in records_of(steps) if folder.resolve() not in known]
    show_claims((*runs, *records), asked, as_json=wanted.as_json)
    return code, (*runs, *records)


def plan_steps(verdicts: Sequence[ClaimVerdict], out: Path, console: Console) -> list[Step]:
    """Every config that an untested verdict names, bound to this machine; nothing is fetched.

    Raises:
        RecordError: a record in `out` is of another config, or cannot be read.
    """
    wanted: dict[str, list[str]] = {}
    for verdict in verdicts:
        for command in verdict.needs:
            for name in RUN_COMMAND.findall(command):
                members = wanted.setdefault(name, [])
                members += [verdict.claim.id] * (verdict.claim.id not in members)
    return [_plan_step(Path(name), tuple(claims), out, console) for name, claims in wanted.items()]


def _plan_step(config: Path, claims: tuple[str, ...], out: Path, console: Console) -> Step:
    step = Step(config, claims, out / config.stem)
    if not config.exists():
        return dataclasses.replace(step, refusal="there is no such config here")
    try:
        read = read_config(config)
        if (step.out / EVENTS_FILE).exists():
            step = _look_at_record(step, read.sha256())
        if step.is_done:
            return step
        check_names(read)
        return _bound(dataclasses.replace(step, seconds=_most_s(read)), read, console)
    except RecordError:
        raise
    except TokbenchError as refused:
        fix = "" if refused.fix is None else f" ({refused.fix})"
        return dataclasses.replace(step, refusal=f"{refused.message}{fix}")


def _bound(step: Step, read: Config, console: Console) -> Step:
    """The step with its cells, or with what speaks against it here; a run fetches the weights that a plan may not."""
    place = running.place_for(read, False, console)
    if step.config.stem.endswith(LARGE_GPU) and place.device.kind not in GPUS:
        refusal = f"made for a large GPU (-h200 in its name); here is {place.device.name}"
        return dataclasses.replace(step, refusal=refusal)
    try:
        plan = bind(read, place, resolver(console, download=False))
    except NotFetchedError:
        return step
    return dataclasses.replace(step, cells=len(plan.cells()), refusal=_too_large(plan))


def _look_at_record(step: Step, config_sha256: str) -> Step:
    """A record of the same config: taken if it came to its end, else to be resumed."""
    if read_header(step.out).config_sha256 != config_sha256:
        raise RecordError(
            f"{step.out}: this record was made with another {step.config.name}",
            fix="tokbench claims --run --out ANOTHER_FOLDER, or move the record away",
        )
    ended = read_run(step.out).ended
    is_done = ended is not None and ended.reason in ("complete", "budget")
    return dataclasses.replace(step, is_begun=True, is_done=is_done)


def _most_s(config: Config) -> float:
    """The budget, and what loading and compiling may take on top of it; fetching weights is in neither."""
    budget = config.run.budget
    return budget.total + budget.cold


def _too_large(plan: Plan) -> str | None:
    """A config made for a larger device: not even one repetition of each cell fits its budget."""
    once_s, budget_s = plan.expected_s(1), plan.config.run.budget.total
    if once_s is None or once_s <= budget_s:
        return None
    return (
        f"made for a larger device: one repetition of every cell would take about {once_s:.0f} s on "
        f"{plan.device.name}, its budget is {budget_s:.0f} s"
    )


def print_steps(steps: Sequence[Step], console: Console) -> None:
    """The plan: what runs, for how long at most, for which claims; and what cannot run here, and why."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    for step in steps:
        if step.is_done:
            state = f"taken: {step.out}"
        elif step.refusal is not None:
            state = f"cannot run here: {step.refusal}"
        else:
            how = "resumed" if step.is_begun else "run"
            cells = "weights to be fetched first" if step.cells is None else f"{step.cells} cells"
            state = f"to be {how}: {cells}, at most {(step.seconds or 0) / 60:.0f} min, into {step.out}"
        say(f"{step.config}: {state}")
        say(f"  feeds {', '.join(step.claims)}")
    ready = [step for step in steps if step.is_ready]
    total_s = sum(step.seconds or 0 for step in ready)
    say(f"{len(ready)} of {len(steps)} configs to run here, at most {total_s / 60:.0f} min in all")


def is_agreed(steps: Sequence[Step], console: Console, *, is_said: bool) -> bool:
    """Whether to run: without `--yes` somebody has to be there to say so."""
    if is_said or not any(step.is_ready for step in steps):
        return True
    if sys.stdin.isatty():
        return typer.confirm("run these now?", err=console.stderr)
    console.print("nothing was run: add --yes to run them", highlight=False)
    return False


def run_steps(steps: Sequence[Step], console: Console) -> ExitCode:
    """Run what can be run, one config after the other; a config that fails does not keep the next from running.

    The code is that of the last run that did not end well; an interrupt ends all.
    """
    worst = ExitCode.OK
    for step in steps:
        if not step.is_ready:
            continue
        console.print(f"== {step.config}", markup=False, highlight=False)
        begun = step.out if step.is_begun else None
        request = running.RunRequest(step.config, None if begun else step.out, (), False, begun, False, True)
        try:
            code = running.run(request, console)
        except TokbenchError as error:
            typer.echo(f"{step.config}: {error}", err=True)
            code = error.exit_code
        if code in STOPPED:
            return code
        worst = code if code is not ExitCode.OK else worst
    return worst


def records_of(steps: Sequence[Step]) -> list[Path]:
    """The records that are there now."""
    return [step.out for step in steps if (step.out / EVENTS_FILE).exists()]
