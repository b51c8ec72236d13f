"""The socket of engines: what makes tokens. One plug per file or package, named as the `kind:` in the YAML.

A plug imports its heavy library inside `open_…` and never imports another plug. `names()` lists the folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

from tokbench.errors import PlugError
from tokbench.measure.environments import Environment, find_environment, how_to_complete, installed_version
from tokbench.measure.work import Anchor as Anchor
from tokbench.measure.work import CellWork as CellWork
from tokbench.measure.work import Chunk as Chunk
from tokbench.measure.work import Divergence as Divergence
from tokbench.measure.work import DraftModel as DraftModel
from tokbench.measure.work import MemoryNow as MemoryNow
from tokbench.measure.work import Prepared as Prepared
from tokbench.measure.work import Repeat as Repeat
from tokbench.measure.work import Request as Request
from tokbench.measure.work import Round as Round
from tokbench.measure.work import Step as Step
from tokbench.record.facts import EngineFacts, ModelFacts
from tokbench.record.spec import EngineSpec, LoadSpec, ModelSpec, SpeculationSpec


@dataclasses.dataclass(frozen=True, slots=True)
class EngineDescription:
    """What a plug is and needs; had without importing its library."""

    kind: str
    what: str
    modes: tuple[str, ...]
    devices: tuple[str, ...]
    packages: tuple[str, ...]
    """Distributions that must be installed."""
    extra: str | None
    """The extra of tokbench that brings them."""
    request_modes: tuple[str, ...] = ()
    """Those of the modes that answer requests; the others work through static batches."""
    parallel_modes: tuple[str, ...] = ()
    """Those of the modes that can split one model over several devices."""
    drafting: tuple[str, ...] = ()
    """Methods of `speculation.method` that it can run, in `drafting_modes`."""
    drafting_modes: tuple[str, ...] = ()
    lives_apart: bool = False
    """Whether `scripts/peers KIND` builds an environment of its own for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a worker is asked to hold open: one model in one mode on one device."""

    model: ModelSpec
    engine: EngineSpec
    device: str
    """As torch names it: `cuda:0`, `cpu`, `mps`."""
    model_name: str
    config_json: str | None
    """The model's own config; None for engines that need none."""
    weights_folder: Path | None
    """A folder with safetensors and tokenizer; None for random weights."""
    threads: int
    seed: int
    revision: str | None = None
    sha256: str | None = None
    note: str | None = None
    devices: tuple[str, ...] = ()
    """All devices of a model that is split, `device` first; empty where it lies on one."""


class Tokenizer(Protocol):
    """Text to token ids, without special tokens."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""


class StepEngine(Protocol):
    """Makes tokens step by step for a static batch. Every stamp is of work that is finished."""

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs; kernels are those that the last prepared cell used."""

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were really loaded."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the weights came without one."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""

    @property
    def clock_error_s(self) -> float | None:
        """Residual of the device clock against the host clock in the last window; None on one clock."""

    @property
    def launched_at_ns(self) -> int | None:
        """When the host had launched all steps of the last window; None where the device does not run apart."""

    @property
    def graphs_compiled(self) -> int | None:
        """Graphs compiled so far in this process; must not move inside a window."""

    def prepare(self, work: CellWork) -> Prepared:
        """Allocate, compile, capture, stage the prompts. Never in a window. Memory peaks count from its start.

        Raises:
            TrialError: it does not fit (`oom`) or the engine cannot do it.
        """

    def prefill(self) -> Step:
        """Process the staged prompts up to the first output token of every row."""

    def decode(self, steps: int) -> Iterator[Step]:
        """Make `steps` further tokens per row; stamps may be read only after the last step."""

    def rewind(self, position: int) -> None:
        """Go back to `position` tokens per row in the cache; 0 empties it."""

    def sync(self) -> int:
        """Wait until the device is idle; the host clock then."""

    def anchors(self) -> list[Anchor]:
        """What ties the device clock to the host clock in the last window; empty on one clock."""

    def output_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Token ids made since the last prefill, row by row. Never called inside a window."""

    def memory(self) -> list[MemoryNow]:
        """Bytes in use and at peak, as the engine can see them; after a failure, the peak up to it."""

    def check_identity(self, tokens: int) -> Divergence | None:
        """Compare with the library's own generation on the staged prompt, row 0; None where there is no reference."""

    def check_repeat(self, steps: int) -> list[Repeat]:
        """The same prompts twice, and row 0 alone beside row 0 in the batch, over `steps` decode steps.

        Empty where memory does not suffice. Never called inside a window; the cell stays prepared.
        """

    def close(self) -> None:
        """Free everything; calling it twice is allowed."""


@runtime_checkable
class StagingEngine(Protocol):
    """What a step engine does besides where a prepared cell can take other prompts without being prepared anew."""

    def stage(self, prompts: tuple[tuple[int, ...], ...]) -> None:
        """Take prompts of the same number and length in the place of those prepared. Never inside a window."""


@runtime_checkable
class ReadingEngine(Protocol):
    """What a step engine does besides where it can tell how fast its memory is at a given moment."""

    def read_weights(self, passes: int) -> tuple[int, tuple[float, ...]] | None:
        """Read all weights so many times with nothing else to do: bytes and seconds of each pass.

        None where that would tell nothing: small weights, or a device whose memory nobody else uses.
        """


@runtime_checkable
class TorchEngine(Protocol):
    """A step engine that shows its PyTorch model to experiments: they may run it, and leave it as they found it."""

    @property
    def model(self) -> Any:
        """The `torch.nn.Module` in evaluation mode, on its device."""

    def sync(self) -> int:
        """Wait until the device is idle; the host clock then."""


class RequestEngine(Protocol):
    """Answers requests that come and go: continuous batching, servers, endpoints."""

    @property
    def facts(self) -> EngineFacts:
        """The software as it really runs."""

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were really loaded."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""

    def now(self) -> int:
        """The clock that chunks are stamped on."""

    def submit(self, request: Request) -> None:
        """Hand over a request without waiting."""

    def poll(self, deadline_ns: int) -> list[Chunk]:
        """Chunks that arrived, waiting until `deadline_ns` at the longest."""

    def cancel(self, request_id: str) -> None:
        """Give up a request."""

    def close(self) -> None:
        """Free everything; calling it twice is allowed."""


@runtime_checkable
class ReservingEngine(Protocol):
    """What a request engine does besides where it holds the weights itself: its cache is ours to size and to check."""

    def reserve(self, requests: int, prompt_tokens: int, output_tokens: int) -> Prepared:
        """Make room for so many requests at once, of such a length. Never with a request in flight.

        Raises:
            TrialError: it does not fit (`oom`) or the engine cannot do it.
        """

    def check_identity(self, prompts: Sequence[tuple[int, ...]], tokens: int) -> Divergence | None:
        """Compare prompts answered side by side with the library's own generation on each; None without a reference."""

    def memory(self) -> list[MemoryNow]:
        """Bytes in use, and at peak since the last reading."""


class EnginePlug(Protocol):
    """The module of a plug."""

    DESCRIPTION: EngineDescription

    def open_engine(self, request: EngineRequest) -> StepEngine | RequestEngine:
        """Load the weights and be ready to prepare cells."""


def names() -> list[str]:
    """The kinds that a config may name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_plug(kind: str) -> EnginePlug:
    """Import one plug.

    Raises:
        PlugError: no such kind; the nearest one is named.
    """
    known = names()
    if kind not in known:
        near = difflib.get_close_matches(kind, known, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise PlugError(f"engine.kind: there is no engine {kind!r}", fix=f"{hint}engines here: {', '.join(known)}")
    return cast(EnginePlug, importlib.import_module(f"{__name__}.{kind}"))


def describe(kinds: Sequence[str] | None = None) -> list[EngineDescription]:
    """Descriptions of the plugs, their libraries left alone."""
    return [load_plug(kind).DESCRIPTION for kind in (kinds if kinds is not None else names())]


def missing_packages(description: EngineDescription) -> list[str]:
    """Distributions that the plug needs and that are not installed in the running interpreter."""
    return [package for package in description.packages if installed_version(package) is None]


def environment_of(spec: EngineSpec) -> Environment:
    """The interpreter that a worker of this engine is started with.

    Raises:
        PlugError: there is no such engine, or its interpreter cannot be run.
    """
    return find_environment(spec, load_plug(spec.kind).DESCRIPTION.packages)


def how_to_get(description: EngineDescription, environment: Environment) -> str:
    """What to do about packages that an environment lacks."""
    extra = f"'tokbench[{description.extra}]'" if description.extra else " ".join(environment.missing)
    if environment.is_own:
        return how_to_complete(environment, description.kind, has_recipe=description.lives_apart)
    apart = f", or scripts/peers {description.kind} (an environment of its own)" if description.lives_apart else ""
    return f"pip install {extra}{apart}"


def check_plug(spec: EngineSpec) -> EngineDescription:
    """Refuse an engine that is unknown, lacks its packages, or has no such mode; nothing heavy is imported.

    Raises:
        PlugError: what is missing and how to get it.
    """
    description = load_plug(spec.kind).DESCRIPTION
    if spec.mode not in description.modes:
        near = difflib.get_close_matches(spec.mode, description.modes, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        raise PlugError(
            f"engine.mode: engine {spec.kind!r} has no mode {spec.mode!r}",
            fix=f"{hint}modes: {', '.join(description.modes)}",
        )
    environment = environment_of(spec)
    if environment.missing:
        where = f"in {environment.python}" if environment.is_own else "here"
        raise PlugError(
            f"engine {spec.kind!r} needs {', '.join(environment.missing)}, not installed {where}",
            fix=how_to_get(description, environment),
        )
    return description


def check_load(spec: EngineSpec, load: LoadSpec) -> None:
    """Refuse a load that a mode cannot serve: static batches and requests are not interchangeable.

    Raises:
        PlugError: what to write instead.
    """
    serves_requests = spec.mode in load_plug(spec.kind).DESCRIPTION.request_modes
    if serves_requests == (load.kind != "static_batch"):
        return
    if serves_requests:
        said, fix = "answers requests, not static batches", "write load: {kind: closed, concurrency: 1, requests: 10}"
    else:
        said, fix = "serves static batches alone", "write load: {kind: static_batch, static_batch: 1}"
    raise PlugError(f"engine {spec.kind!r} in mode {spec.mode!r} {said}", fix=fix)


def check_drafting(spec: EngineSpec, speculation: SpeculationSpec | Literal["none"]) -> None:
    """Refuse a way of drafting that an engine does not know or a mode cannot run.

    Raises:
        PlugError: what it can do.
    """
    if speculation == "none":
        return
    description, method = load_plug(spec.kind).DESCRIPTION, speculation.method
    if spec.mode not in description.drafting_modes:
        fix = f"engine.mode={description.drafting_modes[0]}" if description.drafting_modes else "speculation: none"
        raise PlugError(f"speculation: engine {spec.kind!r} drafts no tokens in mode {spec.mode!r}", fix=fix)
    if method not in description.drafting:
        near = difflib.get_close_matches(method, description.drafting, n=1)
        hint = f"did you mean `{near[0]}`? " if near else ""
        fix = f"{hint}methods: {', '.join(description.drafting)}"
        raise PlugError(f"speculation.method: engine {spec.kind!r} has no method {method!r}", fix=fix)
