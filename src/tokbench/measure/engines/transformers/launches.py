"""What torch.compile made of a step, to be called again without its checks. CPU only: a GPU replays a graph instead.

Between two steps dynamo reads the guards of every weight, and the weights have just pushed them out of the caches:
more than a millisecond of a step of twenty. Whoever launches directly promises that nothing the guards watch changes:
the same model, the same tensors at the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from tokbench.errors import TrialError


class Launch(NamedTuple):
    """A generated function and the tensors that it was called with: weights, cache, token, position."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self) -> torch.Tensor:
        """One step; what it returns is the next token, (rows, 1)."""
        found: torch.Tensor = self.function(*self.arguments)[0]
        return found


class InductorBackend:
    """A backend of torch.compile: inductor with options, whose calls can be listened to.

    One object serves all cells: dynamo keeps what it compiled by backend.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._heard: list[Launch] | None = None

    def __call__(self, graph: Any, inputs: Sequence[Any]) -> Callable[..., Any]:
        """Called by dynamo once per graph."""
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx  # loads the compiler

        with config.patch(self._options):
            function = compile_fx(graph, inputs)

        def call(*arguments: Any) -> Any:
            if self._heard is not None:
                self._heard.append(Launch(function, arguments))
            return function(*arguments)

        return call

    def hear(self, step: Callable[[], object]) -> Launch:
        """Run a compiled step once and tell how it was launched.

        Raises:
            TrialError: it was not one graph with one result.
        """
        self._heard = []
        try:
            step()
            heard = self._heard
        finally:
            self._heard = None
        if len(heard) != 1:
            raise TrialError(f"a compiled step launched {len(heard)} graphs, not one", cause="engine")
        return heard[0]
