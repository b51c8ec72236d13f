"""`tokbench run`: config to record to report. The one place where measuring and deriving meet."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import yaml
from rich.console import Console

import tokbench
from tokbench.cli.console import ConsoleProgress
from tokbench.cli.reporting import load_results, say_headline, write_run_report
from tokbench.errors import ExitCode, PlugError, RecordError, SpecError
from tokbench.measure.host import free_memory_bytes, read_host_facts
from tokbench.measure.meters import Available, Meter
from tokbench.measure.meters import load_plug as load_meter
from tokbench.measure.meters import names as meter_names
from tokbench.measure.models import ResolvedModel, cache_folder, parse_source, resolve_model
from tokbench.measure.nvml import NvmlReader
from tokbench.measure.plan import GroupPlan, Place, Plan, Resolve, bind, safe_environment
from tokbench.measure.probe import find_device, probe
from tokbench.measure.runner import Runner
from tokbench.measure.sampler import Sampler
from tokbench.measure.worker_process import ProcessWorker
from tokbench.record.facts import DeviceFacts
from tokbench.record.observations import SCHEMA_VERSION, MeterAbsent, RunEnded, RunStarted
from tokbench.record.run import Run, read_run
from tokbench.record.spec import ModelSpec
from tokbench.record.store import CONFIG_FILE, RunWriter, create_run, read_header
from tokbench.record.sweep import Config, read_config

QUICK = ("budget.total=300", "stop.rel_ci=0.05", "stop.min_repetitions=3", "stop.max_repetitions=5")
"""`--quick`: an answer in five minutes after the weights are there."""
REPORT_PAUSE_S = 20.0


class Terminated(KeyboardInterrupt):
    """SIGTERM: a scheduler wants the machine back; ends as cleanly as Ctrl-C."""


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
    choice = find_device(str(asked), allow_busy, found)
    from tokbench.measure.choice import torch_device

    return Place(found.host, choice.device, choice.why, torch_device(choice.device), free_memory_bytes(Path("/")))


def resolver(console: Console, download: bool) -> Resolve:
    """How models are found; progress goes to the console."""

    def resolve(spec: ModelSpec) -> ResolvedModel:
        return resolve_model(
            parse_source(spec.source),
            spec.weights,
            spec.dtype,
            cache=cache_folder(os.environ),
            environ=os.environ,
            report=lambda text: console.print(text, markup=False, highlight=False),
            download=download,
        )

    return resolve


def run(request: RunRequest, console: Console) -> ExitCode:
    """Measure, record, report; the exit code that the process ends with."""
    config, folder, earlier = read_request(request)
    if earlier is None and folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        create_run(folder, "")
    with signals_as_interrupts():
        begun = time.monotonic()
        place = place_for(config, request.allow_busy, console)
        console.print(f"device: {place.device.name} ({place.choice})", markup=False, highlight=False)
        plan = bind(config, place, resolver(console, download=True))
        ready_s = time.monotonic() - begun
        console.print(
            f"device and weights ready after {ready_s:.0f} s; config, plan and budget are now fixed",
            markup=False,
            highlight=False,
        )
        writer = open_record(config, folder, earlier)
        return _measure(request, plan, writer, folder, earlier, console)


def open_record(config: Config, folder: Path, earlier: Run | None) -> RunWriter:
    """A writer on a new run's folder, or on the one that goes on."""
    if earlier is not None:
        return RunWriter(folder)
    create_run(folder, yaml.safe_dump(config.tree.value, sort_keys=False, allow_unicode=True))
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
        )
    )
    return writer


def _command_line(arguments: Sequence[str]) -> list[str]:
    """The command as typed, values of keys that smell of a secret left out."""
    smells = ("token", "secret", "password", "api_key")
    return [
        f"{argument.split('=', 1)[0]}=…"
        if "=" in argument
        and any(s in argument.lower().split("=")[0] for s in smells)
        and "tokens" not in argument.lower().split("=")[0]
        else argument
        for argument in arguments
    ]


def _measure(  # everything that one run needs, once
    request: RunRequest, plan: Plan, writer: RunWriter, folder: Path, earlier: Run | None, console: Console
) -> ExitCode:
    def open_worker(group: GroupPlan) -> ProcessWorker:
        environ = safe_environment(os.environ)
        environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder(os.environ) / "inductor"))
        threads = group.spec.engine.threads or plan.host.usable_cores
        return ProcessWorker(folder / "worker.log", environ, threads)

    reported_at = [0.0]

    def report_block() -> None:
        if request.with_report and time.monotonic() - reported_at[0] > REPORT_PAUSE_S:
            writer.sync()
            write_run_report([folder], folder, plan.config.run.compare.published, with_figures=False)
            reported_at[0] = time.monotonic()

    code = ExitCode.OK
    progress = ConsoleProgress(console, plan.config.run.budget.total, plan.device.name)
    with progress:
        runner = Runner(plan, writer, open_worker, progress, report_block)
        sampler = open_sampler(plan, writer, runner)
        sampler.start()
        try:
            outcome = runner.run(earlier)
            code = ExitCode.TRIALS_FAILED if outcome.failed_trials or outcome.skipped_cells else ExitCode.OK
        except KeyboardInterrupt as interrupt:
            is_term = isinstance(interrupt, Terminated)
            code = ExitCode.TERMINATED if is_term else ExitCode.INTERRUPTED
            writer.append(RunEnded(reason="terminated" if is_term else "interrupted", at_ns=time.monotonic_ns()))
        finally:
            sampler.close()
            writer.close()
    console.print(f"cold time (loading weights, compiling): {runner.crew.cold_s:.0f} s", highlight=False)
    if request.with_report:
        _finish(folder, plan, console, code)
    return code


def _finish(folder: Path, plan: Plan, console: Console, code: ExitCode) -> None:
    vendors = plan.config.run.compare.published
    write_run_report([folder], folder, vendors, with_figures=True)
    for line in say_headline(load_results([folder]), vendors):
        console.print(line, markup=False, highlight=False)
    console.print(f"Report: {folder / 'report.md'} (record: {folder})", markup=False, highlight=False)
    if code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
        console.print(f"Stopped early; `tokbench run --resume {folder}` finishes it.", markup=False, highlight=False)


def open_sampler(plan: Plan, writer: RunWriter, runner: Runner) -> Sampler:
    """The sampler with the meters that the config asks for; what cannot be read is recorded with its reason."""
    meters = open_meters(plan, writer)
    gpu = NvmlReader(plan.device.uuid) if plan.device.kind == "cuda" and plan.device.uuid else None
    return Sampler(writer.append, runner.crew.cpu_s, meters, gpu)


def open_meters(plan: Plan, writer: RunWriter) -> list[Meter]:
    """Meters named in the config, or every real one that can be read here.

    Raises:
        PlugError: a meter that was named cannot be read.
    """
    energy = plan.config.run.energy
    if energy == "off":
        writer.append(MeterAbsent(meter="all", reason="the config says energy: off"))
        return []
    wanted = [name for name in meter_names() if name != "fake"] if energy == "auto" else list(energy.meters)
    opened: list[Meter] = []
    for name in wanted:
        meter = load_meter(name).open_meter(plan.device)
        state = meter.availability()
        if isinstance(state, Available):
            opened.append(meter)
        elif energy != "auto":
            raise PlugError(f"energy.meters: {name} cannot be read: {state.reason}", fix=state.remedy)
        else:
            writer.append(MeterAbsent(meter=name, reason=state.reason, remedy=state.remedy))
    if not wanted:
        writer.append(MeterAbsent(meter="all", reason="this version of tokbench has no meter for real hardware yet"))
    return opened


@contextlib.contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """Turn SIGTERM into an interrupt, so that it ends as cleanly as Ctrl-C."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
