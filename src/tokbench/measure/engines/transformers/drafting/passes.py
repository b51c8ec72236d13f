"""One pass of a round: a step of fixed shapes, run as it is, compiled, or captured. Knows nothing of drafting.

It is to drafts and verification what `CompiledLoop` is to single tokens, by the same means: a captured graph on a GPU,
generated kernels replayed as one call on a CPU where that can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tokbench.errors import TrialError
from tokbench.measure.engines.transformers import graphs, replay
from tokbench.measure.engines.transformers.compiling import compiled, cpu_backend
from tokbench.measure.engines.transformers.options import Options


class Pass:
    """A step and the arguments that it always has. A call runs it; nothing waits for the device.

    `changed`: the tensors that tell whether it did the same as before; read only while it is made ready.
    """

    def __init__(self, step: Callable[..., Any], arguments: Sequence[Any], changed: Sequence[torch.Tensor]) -> None:
        self._step = step
        self._arguments = tuple(arguments)
        self._changed = tuple(changed)
        self._launch: Callable[[], Any] = self._plain
        self._graph: Any = None
        self.kernels: int | None = None
        self.note: str | None = None

    def _plain(self) -> None:
        self._step(*self._arguments)

    @property
    def is_captured(self) -> bool:
        """Whether it is a graph of the device."""
        return self._graph is not None

    def __call__(self) -> None:
        """Run it once."""
        self._launch()

    def compile(self, options: Options, device_type: str, restart: Callable[[], None]) -> None:
        """Compile and capture; `restart` is called before every run, the state after it is of no use."""
        self._step = compiled(self._step, options, device_type)
        if device_type == "cuda":
            self._capture(options, restart)
        elif device_type == "cpu" and options.compile_backend == "inductor":
            self._record(restart)
        else:
            restart()
            self._plain()

    def _capture(self, options: Options, restart: Callable[[], None]) -> None:
        graphs.warm_up(self._plain, restart)
        if not options.device_graph:
            self.note = "no device graph: engine.options.device_graph is false"
            return
        restart()
        captured = graphs.capture(self._plain)
        self._graph, self.kernels, self.note = captured.graph, captured.kernels, captured.note
        if self._graph is not None:
            self._launch = self._graph.replay

    def _record(self, restart: Callable[[], None]) -> None:
        restart()
        direct = cpu_backend().hear(self._plain)
        self._launch = direct
        restart()
        try:
            recorded = replay.record(direct)
        except replay.NotReplayableError as refused:
            self.note = f"kernels not replayed as one call: {refused}"
            return
        if self._after(direct, restart) != self._after(recorded, restart):
            raise TrialError("the replayed kernels do not do what the generated code does", cause="engine")
        self._launch, self.kernels = recorded, recorded.kernels

    def _after(self, launch: Callable[[], Any], restart: Callable[[], None]) -> list[Any]:
        restart()
        launch()
        return [tensor.tolist() for tensor in self._changed]

    def close(self) -> None:
        """Let go of graph and arguments."""
        if self._graph is not None:
            self._graph.reset()
        self._graph, self._arguments, self._launch = None, (), self._plain
