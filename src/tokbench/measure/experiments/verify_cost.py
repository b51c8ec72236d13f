"""How long one forward pass over m tokens per row takes at a real cache depth, m after m: what verifying drafts costs.

The passes run on a static cache of its own, compiled where the engine's mode is, captured as a device graph on CUDA,
and read the tokens that really follow in the prompts. Distinct experts are counted in a pass that is not timed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine, TorchEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec, Option, WorkloadSpec

DESCRIPTION = (
    'forward passes over m tokens per row: options.m as text (default "1,2,3,4,6,8,9"), options.windows per m (default '
    "3), in turn, of options.passes each (default 4); options.capture: whether CUDA captures them (default true); "
    "options.compile_backend where the mode is compiled (default inductor)"
)
DEFAULTS: dict[str, Option] = {
    "m": "1,2,3,4,6,8,9",
    "windows": 3,
    "passes": 4,
    "capture": True,
    "compile_backend": "inductor",
}


class _Setting(NamedTuple):
    tokens: tuple[int, ...]
    windows: int
    passes: int
    captures: bool
    compile_backend: str


class _Pass(NamedTuple):
    """A pass over m tokens per row, ready to be launched over and over."""

    launch: Callable[[], None]
    graph: str
    """`device`: captured, `compiled`, or `none`."""
    experts: dict[str, int | float]
    """Distinct experts, summed over layers, and the layers that route; empty for a dense model."""


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse wrong options, and prompts that leave the passes nothing to read.

    Raises:
        PlugError: an unknown option, a value that it cannot take, or prompts too short.
    """
    _read(spec.options, cell.workload)


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """One repetition: a point per m and window, the windows of all m in turn.

    Raises:
        PlugError: an unknown option, prompts too short, or an engine that does not show its model.
    """
    setting = _read(spec.options, work)
    if not isinstance(engine, TorchEngine):
        fix = "engine: {kind: transformers}"
        raise PlugError("experiment.kind: verify_cost needs an engine that shows its PyTorch model", fix=fix)
    import torch  # loaded already where there is a model

    with torch.inference_mode():
        bench = _Bench(engine, work, setting)
        passes = {m: bench.make_pass(m) for m in setting.tokens}
    for window in range(setting.windows):
        for m, made in passes.items():
            yield ExperimentPoint(
                trial_id=trial_id,
                window_id=f"{trial_id}/experiment/m{m}/{window}",
                experiment="verify_cost",
                settings={
                    "m": m,
                    "rows": work.rows,
                    "context": bench.context,
                    "window": window,
                    "graph": made.graph,
                },
                duration_s=bench.time_passes(made, setting.passes),
                stamped_by="host",
                values={"passes": setting.passes, **made.experts},
            )


def _read(options: Mapping[str, Option], work: CellWork | WorkloadSpec) -> _Setting:
    """The options; how long prompts are may not be known before they are made."""
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise PlugError(f"experiment.options: unknown {', '.join(unknown)}", fix=f"known: {', '.join(DEFAULTS)}")
    parts = str(options.get("m", DEFAULTS["m"])).split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise PlugError("experiment.options.m: numbers with commas between them", fix=f'e.g. m: "{DEFAULTS["m"]}"')
    tokens = tuple(sorted({int(part) for part in parts}))
    if tokens[0] != 1 or len(tokens) < 2:
        raise PlugError("experiment.options.m: every cost is set against that of 1 token", fix='e.g. m: "1,2,4"')
    if work.prompt_tokens is not None and tokens[-1] >= work.prompt_tokens:
        fix = f"workload.prompt_tokens above {tokens[-1]}, or a smaller m"
        raise PlugError(f"experiment.options.m: {tokens[-1]} tokens leave nothing of the prompt in the cache", fix=fix)
    counts = {name: options.get(name, DEFAULTS[name]) for name in ("windows", "passes")}
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PlugError(f"experiment.options.{name}: {value!r} is no whole number from 1 on", fix="e.g. 4")
    captures = options.get("capture", DEFAULTS["capture"])
    if not isinstance(captures, bool):
        raise PlugError(f"experiment.options.capture: {captures!r} is neither true nor false", fix="capture: false")
    backend = str(options.get("compile_backend", DEFAULTS["compile_backend"]))
    return _Setting(tokens, int(counts["windows"]), int(counts["passes"]), captures, backend)


class _TorchStepEngine(TorchEngine, StepEngine, Protocol):
    """A step engine that shows its model."""


class _Bench:
    """The model with a static cache that holds the prompts up to where the passes begin."""

    def __init__(self, engine: _TorchStepEngine, work: CellWork, setting: _Setting) -> None:
        import torch
        from transformers import StaticCache

        self.context = work.prompt_tokens - max(setting.tokens)
        self._engine = engine
        self._model = engine.model
        self._captures = setting.captures
        device = next(self._model.parameters()).device
        self._ids = torch.tensor(work.prompts, dtype=torch.long, device=device)
        self._cache: Any = StaticCache(config=self._model.config, max_cache_len=work.prompt_tokens)
        if any(getattr(layer, "is_sliding", False) for layer in self._cache.layers):
            raise PlugError(
                "experiment.kind: verify_cost cannot rewind sliding windows", fix="a model with full attention alone"
            )
        _forward(self._model, self._ids[:, : self.context], self._positions(0, self.context), self._cache, 1)
        self._timed: Any = _forward
        self._is_compiled = engine.facts.mode == "compiled"
        if self._is_compiled:
            self._timed = torch.compile(_forward, fullgraph=True, dynamic=False, backend=setting.compile_backend)

    def _positions(self, start: int, end: int) -> Any:
        import torch

        return torch.arange(start, end, device=self._ids.device).expand(len(self._ids), -1)

    def time_passes(self, made: _Pass, count: int) -> float:
        """Seconds of so many passes in a row, the device idle at both ends; one ahead of them is not timed."""
        import torch

        with torch.inference_mode():
            made.launch()  # brings back what the passes before pushed out of the caches
            begun = self._engine.sync()
            for _ in range(count):
                made.launch()
            return (self._engine.sync() - begun) * 1e-9

    def make_pass(self, m: int) -> _Pass:
        """A pass over the next m tokens of every row; it leaves the cache as long as it found it."""
        ids = self._ids[:, self.context : self.context + m].contiguous()
        positions = self._positions(self.context, self.context + m).contiguous()

        def launch(forward: Any) -> None:
            for layer in self._cache.layers:
                layer.cumulative_length.fill_(self.context)
            forward(self._model, ids, positions, self._cache, 0)

        experts = self._count_experts(lambda: launch(_forward))
        launch(self._timed)
        if ids.is_cuda and self._captures:
            return _Pass(_captured(lambda: launch(self._timed)), "device", experts)
        return _Pass(lambda: launch(self._timed), "compiled" if self._is_compiled else "none", experts)

    def _count_experts(self, launch: Callable[[], None]) -> dict[str, int | float]:
        """Distinct experts that one pass selects; reading them waits for the device, so this pass is not timed."""
        selected: list[Any] = []
        with contextlib.ExitStack() as hooks:
            for module in self._model.modules():
                if _holds_experts(module):
                    handle = module.register_forward_pre_hook(lambda _module, inputs: selected.append(inputs[1]))
                    hooks.callback(handle.remove)
            launch()
        if not selected:
            return {}
        distinct = sum(int(indices.unique().numel()) for indices in selected)
        return {"distinct_experts_sum": distinct, "routed_layers": len(selected)}


def _forward(model: Any, ids: Any, positions: Any, cache: Any, logits: int) -> Any:
    """`logits`: of how many tokens at the end; 0 gives all, as accepting drafts needs them."""
    found = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=logits)
    return found.logits


def _holds_experts(module: Any) -> bool:
    """Whether a module holds the routed experts of a layer; its inputs are (hidden, indices, weights).

    Source: transformers 5.23.0, integrations/moe.py: experts are stacked in parameters of three dimensions.
    """
    down = getattr(module, "down_proj", None)
    return isinstance(getattr(module, "num_experts", None), int) and getattr(down, "ndim", 0) == 3


def _captured(launch: Callable[[], None]) -> Callable[[], None]:
    """The same as one device graph, so that what the host needs to launch kernels is no part of a pass."""
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            launch()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    replay: Callable[[], None] = graph.replay
    return replay
