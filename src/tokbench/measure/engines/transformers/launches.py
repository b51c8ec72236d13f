"""What torch.compile made of a step, to be called again without its checks. CPU only: a GPU replays a graph instead.

Between two steps dynamo reads the guards of every weight, and the weights have just pushed them out of the caches:
more than a millisecond of a step of twenty. Whoever launches directly promises that nothing the guards watch changes:
the same model, the same tensors at the same places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from tokbench.errors import TrialError

KERNEL_ARGUMENTS = 64
"""Tensors that one generated kernel may take: two layers, say, whose buffers the next kernel takes over while they are
cached. Inductor's own limit is 500: sixteen layers with buffers of their own. Source: torch 2.13, codegen/cpp.py."""


@dataclasses.dataclass(frozen=True, slots=True)
class Launch:
    """A generated function and the tensors that it was called with: weights, cache, token, position."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __call__(self) -> None:
        """One step; its token is left where the next step looks for it."""
        self.function(*self.arguments)


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
        from torch._inductor.codegen.cpp import CppScheduling
        from torch._inductor.compile_fx import compile_fx  # loads the compiler

        with (
            config.patch(self._options),
            mock.patch.object(CppScheduling, "MAX_FUSED_KERNEL_ARGS_NUM", KERNEL_ARGUMENTS),
        ):
            function = compile_fx(graph, inputs)

        def call(*arguments: Any) -> Any:
            if self._heard is not None:
                self._heard.append(Launch(function, arguments))
            return function(*arguments)

        return call

    def hear(self, step: Callable[[], object]) -> Launch:
        """Run a compiled step once and tell how it was launched.

        Raises:
            TrialError: it was not one graph.
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
