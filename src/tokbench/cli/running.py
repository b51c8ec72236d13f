"""`tokbench run`: config to record to report. The one place where measuring and deriving meet."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

import tokbench
from tokbench.cli.console import ConsoleProgress
from tokbench.cli.fetching import check_before_fetching, resolver
from tokbench.cli.metering import Meters, open_meters
from tokbench.cli.naming import check_names
from tokbench.cli.report_faults import as_record_errors, in_one_line
from tokbench.cli.reporting import ReportRequest, report_runs, write_run_report
from tokbench.errors import ExitCode, RecordError, SpecError, Terminated, TokbenchError
from tokbench.measure.engines import environment_of
from tokbench.measure.handover import safe_environment
from tokbench.measure.host import free_memory_bytes, read_host_facts
from tokbench.measure.models import cache_folder
from tokbench.measure.nvml import NvmlReader
from tokbench.measure.plan import GroupPlan, Place, Plan, bind
from tokbench.measure.probe import find_device, find_devices, probe
from tokbench.measure.runner import Runner
from tokbench.measure.sampler import Sampler
from tokbench.measure.worker_process import ProcessWorker
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import SCHEMA_VERSION, RunEnded, RunStarted
from tokbench.record.run import Run, read_run
from tokbench.record.secrets import is_secret_key, is_secret_value
from tokbench.record.store import CONFIG_FILE, RunWriter, check_new_run, create_run, read_header
from tokbench.record.sweep import Config, read_config
from tokbench.record.yaml_tree import dump_tree

QUICK = (
    "budget.total=300",
    "budget.cold=0",
    "stop.rel_ci=0.05",
    "stop.min_repetitions=3",
    "stop.max_repetitions=5",
    "stop.warmup_cap=5",
)
"""`--quick`: an answer in five minutes after the weights are there."""
REPORT_PAUSE_S = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class RunRequest:
    """What the command line asked for."""

    config: Path | None
    out: Path | None
    overrides: tuple[str, ...]
    is_quick: bool
    resume: Path | None
    allow_busy: bool
    with_report: bool


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    """One run, ready to begin."""

    request: RunRequest
    plan: Plan
    folder: Path
    earlier: Run | None


def read_request(request: RunRequest) -> tuple[Config, Path, Run | None]:
    """The config, the run's folder, and what an earlier part of the run left.

    Raises:
        SpecError, RecordError: the config cannot be read, or is not the one of the run to be resumed.
    """
    overrides = (*(QUICK if request.is_quick else ()), *request.overrides)
    if request.resume is None:
        if request.config is None:
            raise SpecError("no config named", fix="tokbench run configs/smoke.yaml, or --resume RUN")
        config = read_config(request.config, overrides)
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        return config, request.out or Path("runs") / f"{config.run.name}-{stamp}", None
    if request.out is not None:
        raise SpecError("--resume names the folder already", key="--out", fix="leave --out out")
    header = read_header(request.resume)
    stored = read_config(request.resume / CONFIG_FILE)
    config = stored if request.config is None else read_config(request.config, overrides)
    if request.config is None and overrides:
        raise SpecError("a resumed run keeps its config", key="--set", fix="start a new run to change it")
    if config.sha256() != header.config_sha256:
        raise RecordError(
            f"{request.resume}: the config has changed since this run began",
            fix="resume with the same config and the same --set, or start a new run",
        )
    return config, request.resume, read_run(request.resume)


def place_for(config: Config, allow_busy: bool, say_console: Console) -> Place:
    """Find the device that the config asks for; a config of fakes alone needs none."""
    tree = config.tree.value
    assert isinstance(tree, dict)
    engines = tree["engine"] if isinstance(tree["engine"], list) else [tree["engine"]]
    if all(isinstance(engine, dict) and engine.get("kind") == "fake" for engine in engines):
        host = read_host_facts()
        device = DeviceFacts(kind="fake", name="scripted device")
        return Place(host, device, "fake engines need no device", "cpu", free_memory_bytes(Path("/")))
    asked = tree.get("device", "auto")
    say_console.print("looking for devices …", highlight=False)
    found = probe()
    from tokbench.measure.choice import torch_device

    free_bytes = free_memory_bytes(Path("/"))
    if isinstance(asked, list) and len(asked) > 1:
        choice, *others = find_devices([str(name) for name in asked], allow_busy, found)
        why = "; ".join(each.why for each in (choice, *others))
        further = tuple(each.device for each in others)
        return Place(found.host, choice.device, why, torch_device(choice.device), free_bytes, further)
    choice = find_device(str(asked[0] if isinstance(asked, list) else asked), allow_busy, found)
    return Place(found.host, choice.device, choice.why, torch_device(choice.device), free_bytes)


def run(request: RunRequest, console: Console) -> ExitCode:
    """Measure, record, report; the exit code that the process ends with."""
    with signals_as_interrupts():
        return _run(request, console)


def _run(request: RunRequest, console: Console) -> ExitCode:
    config, folder, earlier = read_request(request)
    check_names(config)
    if earlier is None:
        check_new_run(folder)
    begun = time.monotonic()
    place = place_for(config, request.allow_busy, console)
    console.print(f"device: {place.device.name} ({place.choice})", markup=False, highlight=False)
    if earlier is not None:
        refuse_other_device(earlier, place)
    check_before_fetching(config, place, console)
    before = [cell.spec for cell in earlier.cells.values()] if earlier is not None else []
    plan = bind(config, place, resolver(console, download=True), before)
    meters = open_meters(plan)
    console.print(
        f"device and weights ready after {time.monotonic() - begun:.0f} s; config, plan and budget are now fixed",
        markup=False,
        highlight=False,
    )
    code = _measure(_Job(request, plan, folder, earlier), open_record(config, folder, earlier), meters, console)
    if request.with_report:
        _finish(folder, plan, console, code)
    return code


def refuse_other_device(earlier: Run, place: Place) -> None:
    """A record holds the numbers of one device.

    Raises:
        RecordError: the run to be resumed was made on another.
    """
    before = earlier.device.name if earlier.device is not None else place.device.name
    if before != place.device.name:
        raise RecordError(
            f"{earlier.folder}: this run was made on {before}, here is {place.device.name}",
            fix="resume it there, or start a new run; `tokbench report RUN1 RUN2` sets two runs side by side",
        )


def open_record(config: Config, folder: Path, earlier: Run | None) -> RunWriter:
    """A writer on a new run's folder, or on the one that goes on."""
    if earlier is not None:
        return RunWriter(folder)
    create_run(folder, dump_tree(config.tree.value))
    writer = RunWriter(folder)
    writer.append(
        RunStarted(
            schema_version=SCHEMA_VERSION,
            tokbench_version=tokbench.__version__,
            config_sha256=config.sha256(),
            seed=config.run.seed,
            at_ns=time.monotonic_ns(),
            utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            command=("tokbench", *_command_line(sys.argv[1:])),
            stop=config.run.stop,
        )
    )
    writer.sync()
    return writer


def _command_line(arguments: Sequence[str]) -> list[str]:
    """The command as typed, values that are or may be secrets left out."""
    return [_without_secret(argument) for argument in arguments]


def _without_secret(argument: str) -> str:
    key, separator, value = argument.partition("=")
    is_secret = is_secret_key(key.rsplit(".", 1)[-1]) or is_secret_value(value or argument)
    return f"{key}{separator}…" if is_secret and separator else "…" if is_secret else argument


def _measure(job: _Job, writer: RunWriter, meters: Meters, console: Console) -> ExitCode:
    """Everything that one run needs, once; the record is closed whatever happens."""
    plan = job.plan
    progress = ConsoleProgress(console, plan.config.run.budget.total, plan.device.name)
    try:
        for opened in meters.domains:
            writer.append(opened)
        for absent in meters.absent:
            writer.append(absent)
        with progress:
            report_block = _block_reporter(job, writer, progress)
            runner = Runner(plan, writer, _worker_opener(job), progress, report_block)
            gpu = NvmlReader(plan.device.uuid) if plan.device.kind == "cuda" and plan.device.uuid else None
            sampler = Sampler(writer.append, runner.crew.cpu_s, meters.opened, gpu)
            try:
                code = _run_until_stopped(runner, sampler, writer, job.earlier)
            finally:
                sampler.close()
    finally:
        writer.close()
    console.print(f"cold time (loading weights, compiling): {runner.crew.cold_s:.0f} s", highlight=False)
    return code


def _run_until_stopped(runner: Runner, sampler: Sampler, writer: RunWriter, earlier: Run | None) -> ExitCode:
    try:
        sampler.start()
        outcome = runner.run(earlier, sampler)
    except KeyboardInterrupt as interrupt:
        is_term = isinstance(interrupt, Terminated)
        writer.append(RunEnded(reason="terminated" if is_term else "interrupted", at_ns=time.monotonic_ns()))
        return ExitCode.TERMINATED if is_term else ExitCode.INTERRUPTED
    return ExitCode.TRIALS_FAILED if outcome.failed_trials or outcome.lost_cells else ExitCode.OK


def _worker_opener(job: _Job) -> Callable[[GroupPlan], ProcessWorker]:
    def open_worker(group: GroupPlan) -> ProcessWorker:
        environ = safe_environment(os.environ)
        environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder(os.environ) / "inductor"))
        threads = group.spec.engine.threads or job.plan.host.usable_cores
        python = environment_of(group.spec.engine).python
        return ProcessWorker(job.folder / "worker.log", environ, threads, python)

    return open_worker


def _block_reporter(job: _Job, writer: RunWriter, progress: ConsoleProgress) -> Callable[[], None]:
    reported_at = [-REPORT_PAUSE_S]

    def report_block() -> None:
        if not job.request.with_report or time.monotonic() - reported_at[0] < REPORT_PAUSE_S:
            return
        writer.sync()
        try:
            with as_record_errors(job.folder):
                write_run_report([job.folder], job.folder, job.plan.config.run.compare.published, with_figures=False)
        except TokbenchError as error:  # the record itself was just synced, and matters more
            progress.note(f"no report after this block, the run goes on: {in_one_line(error)}")
        reported_at[0] = time.monotonic()

    return report_block


def _finish(folder: Path, plan: Plan, console: Console, code: ExitCode) -> None:
    vendors = plan.config.run.compare.published
    with as_record_errors(folder):
        _, lines = report_runs(ReportRequest((folder,), folder, tuple(vendors)))
    for line in lines:
        console.print(line, markup=False, highlight=False)
    console.print(f"Report: {folder / 'report.md'} (record: {folder})", markup=False, highlight=False)
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        console.print(f"Stopped early; `tokbench run --resume {folder}` finishes it.", markup=False, highlight=False)


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Turn SIGTERM into an interrupt that ends as cleanly as Ctrl-C; a second one is left out."""

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
