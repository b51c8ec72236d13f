"""The step engine of a model that is split over several devices: one process each, all doing what rank 0 does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import (
    Anchor,
    CellWork,
    Divergence,
    EngineRequest,
    MemoryNow,
    Prepared,
    Repeat,
    Step,
    Tokenizer,
)
from tokbench.measure.engines.transformers import links, shards
from tokbench.measure.engines.transformers.engine import TransformersEngine
from tokbench.measure.engines.transformers.rank_calls import Answer, Call, backend_of, own_request
from tokbench.measure.engines.transformers.rank_group import Group
from tokbench.record.facts import EngineFacts, ModelFacts
from tokbench.units import BYTES, format_value


def open_split(request: EngineRequest) -> SplitEngine:
    """The engine over several devices, or over two processes of one CPU with a link between them.

    Raises:
        PlugError: it cannot be split or cut.
    """
    return SplitEngine(request) if links.cut_of(request) == "none" else LinkedEngine(links.cut_request(request))


class SplitEngine:
    """One model on several devices in one mode. Stamps, anchors and tokens are rank 0's."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._ranks = shards.ranks_of(request)
        is_pipeline = links.cut_of(request) == "pipeline"
        if not is_pipeline:
            shards.check_request(request)
        self._group = Group(request)
        with contextlib.ExitStack() as undo:
            undo.callback(self._group.end)
            own = own_request(request, 0)
            with self._group.joined(own) as answers:
                self._engine = TransformersEngine(links.loaded_request(own))
                self._link, self._held = links.install(self._engine.model, own, 0)
            undo.pop_all()
        self._graphs: tuple[int, ...] = ()
        self._model_facts = self._engine.model_facts if is_pipeline else self._sum_facts(answers)
        self._collectives = 2 if is_pipeline else shards.collectives_per_step(self._engine._model, self._ranks)

    def _sum_facts(self, answers: list[Answer]) -> ModelFacts:
        """Bytes of all ranks together, and how many of them are there more than once."""
        own = self._engine.model_facts
        found = [own, *(answer.model_facts for answer in answers if answer.model_facts is not None)]
        copied = format_value(shards.copied_bytes(self._engine._model), BYTES)
        note = f"bytes are those of {self._ranks} processes together; {copied} that the plan does not split are in each"
        return own.model_copy(
            update={
                "weight_bytes": sum(facts.weight_bytes or 0 for facts in found),
                "lookup_bytes": sum(facts.lookup_bytes or 0 for facts in found),
                "expert_bytes": sum(facts.expert_bytes or 0 for facts in found),
                "note": note if own.note is None else f"{own.note}; {note}",
            }
        )

    @property
    def facts(self) -> EngineFacts:
        """The software as rank 0 runs it, and how the ranks stand together."""
        facts = self._engine.facts
        backend = backend_of(self._request.device)
        how = f"tensor parallel over {self._ranks} processes ({backend}), {self._collectives} collectives per step"
        notes = (
            how if self._held is None else f"pipeline over {self._ranks} processes ({backend}): {self._held}",
            f"memory readings: of rank 0, then the largest of {self._ranks} ranks",
            "CPU seconds of a window: of rank 0 alone",
        )
        return facts.model_copy(update={"notes": (*facts.notes, *notes)})

    @property
    def model_facts(self) -> ModelFacts:
        """The weights that were really loaded, of all ranks."""
        return self._model_facts

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the weights came without one."""
        return self._engine.tokenizer

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self._engine.vocabulary

    @property
    def clock_error_s(self) -> float | None:
        """Residual of rank 0's device clock in the last window."""
        return self._engine.clock_error_s

    @property
    def launched_at_ns(self) -> int | None:
        """When rank 0 had launched all steps of the last window."""
        return self._engine.launched_at_ns

    @property
    def graphs_compiled(self) -> int | None:
        """Graphs of the rank that compiled most; None in eager mode."""
        own = self._engine.graphs_compiled
        return None if own is None else max((own, *self._graphs))

    @contextlib.contextmanager
    def _together(self, call: Call) -> Iterator[list[Answer]]:
        with self._group.together(call) as answers:
            yield answers
        self._graphs = tuple(answer.graphs_compiled for answer in answers if answer.graphs_compiled is not None)

    def prepare(self, work: CellWork) -> Prepared:
        """As on one device, on every rank; the cache's bytes are those of all ranks.

        Raises:
            PlugError: tokens are to be drafted.
        """
        if work.speculation is not None:
            raise PlugError(
                "speculation: no tokens are drafted for a model that is split",
                fix="name one device, or speculation: none",
            )
        with self._together(Call("prepare", work)) as answers:
            prepared = self._engine.prepare(work)
        sizes = [prepared.kv_bytes_allocated, *(answer.kv_bytes for answer in answers)]
        known = [size for size in sizes if size is not None]
        return prepared._replace(kv_bytes_allocated=sum(known) if len(known) == self._ranks else None)

    def prefill(self) -> Step:
        """Process the staged prompts; telling the other ranks is part of the window."""
        with self._together(Call("prefill")):
            return self._engine.prefill()

    def decode(self, steps: int) -> Iterator[Step]:
        """Launch all steps on every rank, then read rank 0's stamps."""
        with self._together(Call("decode", number=steps)):
            return self._engine.decode(steps)

    def rewind(self, position: int) -> None:
        """Go back to `position` tokens per row, on every rank."""
        with self._together(Call("rewind", number=position)):
            self._engine.rewind(position)

    def sync(self) -> int:
        """Wait until rank 0's device is idle; the others have answered by then."""
        return self._engine.sync()

    def anchors(self) -> list[Anchor]:
        """The anchors of rank 0's last window."""
        return self._engine.anchors()

    def output_tokens(self) -> tuple[tuple[int, ...], ...]:
        """Token ids made since the last prefill.

        Raises:
            TrialError: the ranks made different ones: they were out of step, and nothing they said holds.
        """
        with self._together(Call("tokens")) as answers:
            tokens = self._engine.output_tokens()
        for answer in answers:
            if answer.tokens != tokens:
                raise TrialError(f"rank {answer.rank} made other tokens than rank 0", cause="engine")
        return tokens

    def memory(self) -> list[MemoryNow]:
        """Rank 0's readings, then the largest of all ranks; after a failure that ended the others, rank 0's alone."""
        if self._group.is_over:
            return self._engine.memory()
        with self._together(Call("memory")) as answers:
            own = self._engine.memory()
        found = [own, *(list(answer.memory) for answer in answers)]
        largest = [max(column, key=lambda reading: reading.value_bytes) for column in zip(*found, strict=True)]
        return [*own, *largest]

    def check_identity(self, tokens: int) -> Divergence | None:
        """Beside transformers' own `generate` on the same ranks."""
        with self._together(Call("identity", number=tokens)):
            return self._engine.check_identity(tokens)

    def check_repeat(self, steps: int) -> list[Repeat]:
        """The staged prompts twice; the states compared are rank 0's part of the cache."""
        with self._together(Call("repeat", number=steps)):
            return self._engine.check_repeat(steps)

    def close(self) -> None:
        """End the other ranks, free this one's part."""
        self._group.close()
        self._engine.close()


class LinkedEngine(SplitEngine):
    """Two processes of one CPU, with a link between them that can be given a delay."""

    @property
    def cut(self) -> str:
        """`tensor`: through every layer, or `pipeline`: between layers."""
        return links.cut_of(self._request)

    def _own_link(self) -> links.Link:
        assert self._link is not None  # opened by `open_split` alone
        return self._link

    def set_link(self, latency_s: float, bytes_per_s: float) -> None:
        """Wait so long at every exchange from now on, besides what it takes by itself."""
        with self._together(Call("link", delay=(latency_s, bytes_per_s))):
            self._own_link().set(latency_s, bytes_per_s)

    def decode(self, steps: int) -> Iterator[Step]:
        """As over several devices; the exchanges are counted."""
        self._own_link().forget()
        return super().decode(steps)

    def exchanged(self) -> tuple[int, int]:
        """Exchanges of the last decode, and bytes that passed: of one process what it sent, of a pipeline both ways."""
        found = self._own_link().exchanges
        return len(found), sum(size for _, size in found)

    def exchange_alone(self) -> None:
        """The exchanges of the last decode once more, with nothing computed between them and no delay."""
        with self._together(Call("exchange", number=1)):
            links.exchange_alone(self._own_link(), 0, 1)
