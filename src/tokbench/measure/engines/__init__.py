"""The socket of engines: what makes tokens. One plug per file or package, named as the `kind:` in the YAML.

A plug imports its heavy library inside `open_…` and never imports another plug. `names()` lists the folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from tokbench.errors import PlugError
from tokbench.record.facts import EngineFacts, ModelFacts
from tokbench.record.spec import EngineSpec, ModelSpec


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


@dataclasses.dataclass(frozen=True, slots=True)
class CellWork:
    """What one cell asks of a step engine."""

    prompts: tuple[tuple[int, ...], ...]
    """Token ids, one tuple a row, all of one length."""
    output_tokens: int

    @property
    def rows(self) -> int:
        """Sequences in one forward pass."""
        return len(self.prompts)

    @property
    def prompt_tokens(self) -> int:
        """Tokens in each prompt."""
        return len(self.prompts[0])


class Step(NamedTuple):
    """One finished forward pass of a static batch."""

    at_ns: int
    tokens_per_row: int
    """Output tokens that every row got since the last stamp."""
    drafted_per_row: tuple[int, ...] | None = None
    accepted_per_row: tuple[int, ...] | None = None
    draft_s: float | None = None
    verify_s: float | None = None


class Anchor(NamedTuple):
    """Host stamps around one event of the device clock, as in `ClockAnchor`."""

    before_at_ns: int
    after_at_ns: int
    label: str


class Prepared(NamedTuple):
    """What preparing a cell left behind."""

    cache_rows: int | None
    kv_bytes_allocated: int | None
    compile_s: float | None


class MemoryNow(NamedTuple):
    """Bytes in use by one source, named as in `MemoryReading.source`."""

    source: str
    value_bytes: int


class Divergence(NamedTuple):
    """Our tokens beside a reference's."""

    reference: str
    tokens_compared: int
    first_divergence: int | None
    top2_gap: float | None


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
        """Allocate, compile, capture, stage the prompts. Never in a window.

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
        """Bytes in use and at peak, as the engine can see them."""

    def check_identity(self, tokens: int) -> Divergence | None:
        """Compare with the library's own generation on the staged prompt, row 0; None where there is no reference."""

    def close(self) -> None:
        """Free everything; calling it twice is allowed."""


class Chunk(NamedTuple):
    """Tokens of one request that arrived together."""

    request_id: str
    at_ns: int
    tokens: int
    finish_reason: str | None = None
    error: str | None = None


class Request(NamedTuple):
    """One prompt to be answered."""

    request_id: str
    prompt: tuple[int, ...]
    output_tokens: int


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
    """Distributions that the plug needs and that are not installed."""
    found = []
    for package in description.packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found.append(package)
    return found


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
    missing = missing_packages(description)
    if missing:
        fix = (
            f"pip install 'tokbench[{description.extra}]'" if description.extra else f"pip install {' '.join(missing)}"
        )
        raise PlugError(f"engine {spec.kind!r} needs {', '.join(missing)}, not installed here", fix=fix)
    return description
