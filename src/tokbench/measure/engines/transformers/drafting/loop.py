"""The loop of rounds: γ drafts for every row, one pass of the target over all of them, and each row goes on alone.

It stands beside the loops of single tokens (loops.py) and is driven like them. At most one wait for the device a round.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import CellWork, EngineRequest, Step
from tokbench.measure.engines.transformers import attention, attention_choice, caches, kernels
from tokbench.measure.engines.transformers.clocks import StepClock
from tokbench.measure.engines.transformers.drafting import METHODS, find_opener
from tokbench.measure.engines.transformers.drafting.cuts import open_cuts
from tokbench.measure.engines.transformers.drafting.drafter import Keeper, Room, Rows
from tokbench.measure.engines.transformers.drafting.parts import Parts, Side, open_parts
from tokbench.measure.engines.transformers.drafting.passes import Pass
from tokbench.measure.engines.transformers.drafting.reading import Read, check_head, read, read_prompt
from tokbench.measure.engines.transformers.drafting.rounds import check_gamma, rounds_of
from tokbench.measure.engines.transformers.drafting.rows_cache import open_rows_cache
from tokbench.measure.engines.transformers.drafting.rules import choose_rule
from tokbench.measure.engines.transformers.drafting.verifying import Tally, verify
from tokbench.measure.engines.transformers.options import Options
from tokbench.measure.engines.transformers.sampling import open_noise, take


@dataclasses.dataclass(frozen=True, slots=True)
class Seat:
    """What the engine lends to a loop of rounds."""

    model: Any
    request: EngineRequest
    options: Options
    weight_bytes: int
    keeper: Keeper


class DraftingLoop:
    """Rounds of drafting on a static cache of our own, passes compiled or not.

    Between two calls of `decode` all rows hold the same number of tokens; within one they advance apart.
    """

    def __init__(self, seat: Seat, work: CellWork, experts: kernels.ExpertsChoice) -> None:
        assert work.speculation is not None  # the engine opens it for such work alone
        self.work, self.experts = work, experts
        self._seat, self._model, self._options = seat, seat.model, seat.options
        self._is_compiled = seat.request.engine.mode == "compiled"
        self._device = next(seat.model.parameters()).device
        self._gamma, self._method = work.speculation.gamma, work.speculation.method
        self.cache_rows = _cache_rows(seat, work)
        self._cache = open_rows_cache(seat.model.config, work.rows, self.cache_rows, self._gamma, self._device)
        self._noise = open_noise(self._device, work.seed, work.temperature)
        self._rows = self._lay_out_rows()
        room = self._room(seat)
        self._drafter = find_opener(self._method)(room)
        rule, self._draws = choose_rule(room)
        self._tally = Tally(self._whole(work.rows, 1), self._whole(1), self._whole(work.output_tokens, work.rows, 4))
        self._verify = Pass(
            verify,
            (seat.model, self._rows, self._cache, self._tally, rule, self._draws),
            (self._rows.tokens, self._rows.lengths, self._tally.log),
        )
        self._positions = torch.arange(work.prompt_tokens, device=self._device).expand(work.rows, -1)
        self._prompt_state: torch.Tensor | None = None
        self._made = self._repetitions = 0
        self._chosen: tuple[str, ...] = ()
        self._parts: Parts | None = None

    def _room(self, seat: Seat) -> Room:
        """What the drafter is opened with."""
        return Room(
            model=seat.model,
            request=seat.request,
            work=self.work,
            options=seat.options,
            rows=self._rows,
            cache=self._cache,
            capacity=self.cache_rows,
            noise=self._noise,
            experts=self.experts,
            keeper=seat.keeper,
        )

    def _whole(self, *shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.long, device=self._device)

    def _lay_out_rows(self) -> Rows:
        """The tensors that loop and drafter share."""
        work, method, config = self.work, METHODS[self._method], self._model.config
        rows, gamma = work.rows, self._gamma
        has_shares = self._noise is not None and not method.is_point_mass
        if method.uses_hidden:
            check_head(self._model, self._method)
        floats = {"dtype": torch.float32, "device": self._device}
        return Rows(
            tokens=self._whole(rows, work.prompt_tokens + work.output_tokens + gamma + 1),
            lengths=self._whole(rows, 1),
            accepted=self._whole(rows, 1),
            drafts=self._whole(rows, gamma),
            drafted=self._whole(rows, 1).fill_(gamma),
            probabilities=torch.zeros((rows, gamma, config.vocab_size), **floats) if has_shares else None,
            hidden=torch.zeros((rows, gamma + 1, config.hidden_size), dtype=self._model.dtype, device=self._device)
            if method.uses_hidden
            else None,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What drafts, by which rule drafts are accepted, and how the passes run."""
        spec = self.work.speculation
        assert spec is not None
        rule = "as a trace says: REPLAY, no token means anything" if spec.method == "replay" else _RULES[spec.accept]
        passes = () if self._verify.note is None else (f"verification: {self._verify.note}",)
        said = f"speculation: {spec.method}, {spec.gamma} drafts a round, accepted {rule}"
        return (said, *self._drafter.notes, *passes, *self._chosen)

    @property
    def kernels_per_step(self) -> int | None:
        """Kernels of one verification as captured, drafts left out."""
        return self._verify.kernels

    @property
    def uses_device_graph(self) -> bool:
        """Whether verification is a captured graph."""
        return self._verify.is_captured

    @property
    def steps_left(self) -> int:
        """Tokens per row until the buffers of the cell are full."""
        return self.work.output_tokens - self._made

    @property
    def _held(self) -> int:
        """Tokens in each row's cache between two calls of `decode`."""
        return self.work.prompt_tokens + self._made - 1 if self._made else 0

    def prefill(self, ids: torch.Tensor) -> None:
        """`ids`: (rows, prompt). Fills the caches from their beginning and makes the first token."""
        if self._made:
            raise TrialError("a prefill needs an empty cache: rewind to 0 first", cause="engine")
        if self._noise is not None:
            self._noise.begin()
        self._repetitions += 1
        self._begin_trace()
        found = self._read_prompt(ids)
        prompt = self.work.prompt_tokens
        self._rows.tokens[:, :prompt].copy_(ids)
        self._rows.tokens[:, prompt : prompt + 1].copy_(take(found.logits[:, -1], self._draws.sampling))
        self._prompt_state = None if found.hidden is None else found.hidden[:, -1:].clone()
        self._set(1)
        self._drafter.prefill(ids, found.hidden)

    def _begin_trace(self) -> None:
        """Stand where the trace of this repetition begins; nothing where none is followed."""
        if self._draws.cursor is not None:
            self._draws.cursor.fill_((self._repetitions - 1) * self.work.output_tokens)

    def _read_prompt(self, ids: torch.Tensor) -> Read:
        """The whole prompt, in chunks where the config asks for them."""
        chunk = self._options.prefill_chunk or self.work.prompt_tokens
        if chunk < self.work.prompt_tokens and self._cache.has_rings:
            raise PlugError(
                "a sliding window cannot be filled in chunks with speculation", fix="leave out prefill_chunk"
            )
        hidden = self._rows.hidden is not None
        kernels.use_experts(self._model, self.experts.prefill)
        attention.set_prefill_from_empty(True)
        try:
            found = [read_prompt(self._model, ids[:, :chunk], self._positions[:, :chunk], self._cache, hidden=hidden)]
            for start in range(chunk, self.work.prompt_tokens, chunk):
                piece = slice(start, start + chunk)
                positions = self._positions[:, piece]
                found.append(read(self._model, ids[:, piece], positions, self._cache, last=True, hidden=hidden))
        finally:
            attention.set_prefill_from_empty(False)
            kernels.use_experts(self._model, self.experts.decode)
        states = [piece.hidden for piece in found if piece.hidden is not None]
        return Read(found[-1].logits, torch.cat(states, 1) if states else None)

    def _set(self, made: int) -> None:
        """Let all rows hold so many tokens, all of the cell's wanted."""
        self._made = made
        self._rows.lengths.fill_(self._held)
        self._rows.accepted.zero_()
        self._tally.goals.fill_(self.work.prompt_tokens + self.work.output_tokens - 1)
        self._tally.round.zero_()
        if self._rows.hidden is not None and self._prompt_state is not None:
            self._rows.hidden[:, :1].copy_(self._prompt_state)

    def compile(self) -> None:
        """Compile and capture; the cache has to be rewound to 0 after it."""
        if not self._is_compiled:
            return
        if self._device.type == "cuda" and self._options.time_attention:  # as a single token's pass does (loops.py)
            filled = self.work.prompt_tokens
            self._chosen = attention_choice.take_fastest(self._model, self._cache, self._gamma + 1, filled)
        self._verify.compile(self._options, self._device.type, self.restart)
        self._drafter.compile(self.restart)

    def step(self) -> None:
        """One round, wherever the rows stand; to be tried out and counted, never timed."""
        if self._noise is not None:
            self._noise.refill()
        self._drafter.draft()
        self._verify()

    def advance(self, steps: int) -> None:
        """So many tokens for every row, untimed."""
        self._aim(steps)
        while self._most_left():
            self.step()
        self._made += steps

    def reserve(self, clock: StepClock) -> None:
        """Make ready for windows of all output tokens; never in a window."""
        self._sync = clock.sync
        self._cuts = open_cuts(self._device, clock.sync)
        self._cuts.reserve(3 * self.work.output_tokens + 1)

    def decode(self, steps: int, clock: StepClock) -> list[Step]:
        """So many tokens for every row, a stamp and a `Round` for each round.

        Raises:
            TrialError: the drafter did not draft what it was asked for.
        """
        self._aim(steps)
        clock.begin()
        self._cuts.begin()
        left, rounds = steps, 0
        while left:
            least = -(-left // (self._gamma + 1))  # the row that lacks most needs at least so many: none is wasted
            for _ in range(least):
                self._timed_round(clock)
            rounds += least
            left = self._most_left()
        stamps = clock.finish()
        self._made += steps
        log = self._tally.log[:rounds].tolist()
        check_gamma(log, self._gamma, self._method)
        return rounds_of(log, self._cuts, stamps)

    def _timed_round(self, clock: StepClock) -> None:
        if self._noise is not None:
            self._noise.refill()
        self._cuts.cut()
        self._drafter.draft()
        self._cuts.cut()
        self._verify()
        self._cuts.cut()
        clock.mark()

    @torch.inference_mode()
    def time_part(self, part: str, passes: int) -> float:
        """Seconds of so many passes of `plain`, `draft` or `verify` alone; a prefill came before, never in a window."""
        if self._parts is None:
            ids = self._rows.tokens[:, : self.work.prompt_tokens]
            self._parts = open_parts(self._seat, self.work, ids, Side(self.restart, self.experts.decode))
        launches = {"plain": None, "draft": self._drafter.draft, "verify": self._verify}
        return self._parts.time(launches[part], passes, self._sync)

    def _aim(self, steps: int) -> None:
        """Let every row end so many tokens on; rounds are counted from here."""
        self._tally.goals.fill_(self._held + steps)
        self._tally.round.zero_()

    def _most_left(self) -> int:
        """Tokens that the row which lacks most still lacks. Waits for the device."""
        return int((self._tally.goals - self._rows.lengths).amax())

    def rewind(self, position: int) -> None:
        """Go back to where every row's cache holds `position` tokens; 0 empties it.

        Raises:
            TrialError: that lies inside the prompt, ahead, or before a window that was overwritten.
        """
        if position and not self.work.prompt_tokens <= position <= self._held:
            raise TrialError(
                f"cannot rewind to {position}: the prompt has {self.work.prompt_tokens} tokens, the cache {self._held}",
                cause="engine",
            )
        self._cache.rewind(position, self._held)
        self._drafter.rewind(position, self._held)
        if position:
            self._set(position - self.work.prompt_tokens + 1)
        self._made = position - self.work.prompt_tokens + 1 if position else 0

    def restart(self) -> None:
        """Back to just after the prefill, the trace too: a pass that is tried out twice does the same."""
        self.rewind(self.work.prompt_tokens)
        self._begin_trace()

    def draw_again(self, repetition: int = 0) -> None:
        """Let the next prefill start random numbers and trace where those of a repetition begin."""
        self._repetitions = repetition
        if self._noise is not None:
            self._noise.restart(repetition)

    def states(self) -> list[torch.Tensor]:
        """Cached keys and values, layer by layer, as far as they are filled: (rows, heads, tokens, width) each."""
        tensors = [tensor for layer in self._cache.layers for tensor in (layer.keys, layer.values)]
        return [tensor[:, :, : self._held] for tensor in tensors]

    def made(self) -> torch.Tensor:
        """Tokens made since the prefill: (rows, made)."""
        return self._rows.tokens[:, self.work.prompt_tokens : self.work.prompt_tokens + self._made]

    def cache_bytes(self) -> int:
        """Bytes of the target's cache and of the drafter's own, as allocated."""
        return caches.cache_bytes(self._cache) + self._drafter.cache_bytes()

    def close(self) -> None:
        """Let go of graphs, caches and the drafter."""
        if self._parts is not None:
            self._parts.close()
        self._verify.close()
        self._drafter.close()
        self._cache.layers.clear()


_RULES = {
    "lossless": "losslessly",
    "top3": "among the target's three likeliest tokens: LOSSY ON PURPOSE",
}


def _cache_rows(seat: Seat, work: CellWork) -> int:
    """Tokens that a row's cache holds: prompt, output and γ drafts beyond, padded as for single tokens."""
    assert work.speculation is not None
    parameter = next(seat.model.parameters())
    growth = caches.growing_bytes_per_row(seat.model.config, parameter.element_size())
    share = caches.GPU_PADDING_SHARE if parameter.is_cuda else caches.MAX_PADDING_SHARE
    needed = work.prompt_tokens + work.output_tokens + work.speculation.gamma
    return caches.padded_cache_rows(needed, growth * work.rows, float(seat.weight_bytes), share)
