"""How long one forward pass over m tokens per row takes at a real cache depth, m after m: what verifying drafts costs.

The passes run on a static cache of its own, compiled where the engine's mode is, captured as a device graph on CUDA,
and read the tokens that really follow in the prompts. Distinct experts are counted in a pass that is not timed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tokbench.errors import PlugError
from tokbench.measure.engines import CellWork, StepEngine, TorchEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import ExperimentSpec, Option

DESCRIPTION = (
    'forward passes over m tokens per row: options.m as text (default "1,2,3,4,6,8,9"), options.windows per m (default '
    "3), in turn, of options.passes each (default 4); options.compile_backend where the mode is compiled (inductor)"
)
DEFAULTS: dict[str, Option] = {"m": "1,2,3,4,6,8,9", "windows": 3, "passes": 4, "compile_backend": "inductor"}


class _Setting(NamedTuple):
    tokens: tuple[int, ...]
    windows: int
    passes: int
    compile_backend: str


class _Pass(NamedTuple):
    """A pass over m tokens per row, ready to be launched over and over."""

    launch: Callable[[], None]
    graph: str
    """`device`: captured, `compiled`, or `none`."""
    experts: dict[str, int | float]
    """Distinct experts, summed over layers, and the layers that route; empty for a dense model."""


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """One repetition: a point per m and window, the windows of all m in turn.

    Raises:
        PlugError: an unknown option, prompts too short, or an engine that does not show its model.
    """
    setting = _read(spec.options, work)
    if not isinstance(engine, TorchEngine):
        fix = "engine: {kind: transformers}"
        raise PlugError("experiment.kind: verify_cost needs an engine that shows its PyTorch model", fix=fix)
    context = work.prompt_tokens - max(setting.tokens)
    with contextlib.ExitStack() as opened:
        import torch  # loaded already where there is a model

        opened.enter_context(torch.inference_mode())
        backend = setting.compile_backend if engine.facts.mode == "compiled" else None
        bench = _Bench(engine.model, work, context, backend)
        passes = {m: bench.make_pass(m) for m in setting.tokens}
        for window in range(setting.windows):
            for m, made in passes.items():
                made.launch()  # brings back what the pass before pushed out of the caches
                begun = engine.sync()
                for _ in range(setting.passes):
                    made.launch()
                ended = engine.sync()
                yield ExperimentPoint(
                    trial_id=trial_id,
                    window_id=f"{trial_id}/experiment/m{m}/{window}",
                    experiment="verify_cost",
                    settings={
                        "m": m,
                        "rows": work.rows,
                        "context": context,
                        "window": window,
                        "graph": made.graph,
                    },
                    duration_s=(ended - begun) * 1e-9,
                    stamped_by="host",
                    values={"passes": setting.passes, **made.experts},
                )


def _read(options: Mapping[str, Option], work: CellWork) -> _Setting:
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise PlugError(f"experiment.options: unknown {', '.join(unknown)}", fix=f"known: {', '.join(DEFAULTS)}")
    parts = str(options.get("m", DEFAULTS["m"])).split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise PlugError("experiment.options.m: numbers with commas between them", fix=f'e.g. m: "{DEFAULTS["m"]}"')
    tokens = tuple(sorted({int(part) for part in parts}))
    if tokens[0] != 1 or len(tokens) < 2:
        raise PlugError("experiment.options.m: every cost is set against that of 1 token", fix='e.g. m: "1,2,4"')
    if tokens[-1] >= work.prompt_tokens:
        fix = f"workload.prompt_tokens above {tokens[-1]}, or a smaller m"
        raise PlugError(f"experiment.options.m: {tokens[-1]} tokens leave nothing of the prompt in the cache", fix=fix)
    counts = {name: options.get(name, DEFAULTS[name]) for name in ("windows", "passes")}
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise PlugError(f"experiment.options.{name}: {value!r} is no whole number from 1 on", fix="e.g. 4")
    backend = str(options.get("compile_backend", DEFAULTS["compile_backend"]))
    return _Setting(tokens, int(counts["windows"]), int(counts["passes"]), backend)


class _Bench:
    """The model with a static cache that holds the prompts up to where the passes begin."""

    def __init__(self, model: Any, work: CellWork, context: int, backend: str | None) -> None:
        import torch
        from transformers import StaticCache

        self._model = model
        device = next(self._model.parameters()).device
        self._ids = torch.tensor(work.prompts, dtype=torch.long, device=device)
        self._context = context
        self._cache: Any = StaticCache(config=self._model.config, max_cache_len=work.prompt_tokens)
        if any(getattr(layer, "is_sliding", False) for layer in self._cache.layers):
            raise PlugError(
                "experiment.kind: verify_cost cannot rewind sliding windows", fix="a model with full attention alone"
            )
        _forward(self._model, self._ids[:, :context], self._positions(0, context), self._cache, 1)
        self._timed: Any = _forward
        if backend is not None:
            self._timed = torch.compile(_forward, fullgraph=True, dynamic=False, backend=backend)
        self._graph = "none" if backend is None else "compiled"

    def _positions(self, start: int, end: int) -> Any:
        import torch

        return torch.arange(start, end, device=self._ids.device).expand(len(self._ids), -1)

    def make_pass(self, m: int) -> _Pass:
        """A pass over the next m tokens of every row; it leaves the cache as long as it found it."""
        ids = self._ids[:, self._context : self._context + m].contiguous()
        positions = self._positions(self._context, self._context + m).contiguous()

        def launch(forward: Any) -> None:
            for layer in self._cache.layers:
                layer.cumulative_length.fill_(self._context)
            forward(self._model, ids, positions, self._cache, 0)

        experts = self._count_experts(lambda: launch(_forward))
        launch(self._timed)
        if ids.is_cuda:
            return _Pass(_captured(lambda: launch(self._timed)), "device", experts)
        return _Pass(lambda: launch(self._timed), self._graph, experts)

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
