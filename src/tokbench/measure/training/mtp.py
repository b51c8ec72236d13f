"""Trains an MTP head on its target's own text: self-distillation. The target's weights stay as they are."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from tokbench.measure.engines.transformers.drafting.mtp_head import HeadFacts, MtpHead, TargetParts, parts_of, print_of
from tokbench.measure.training.checkpoint import KEPT_EVERY, Checkpoint
from tokbench.measure.training.harvest import Harvest, Say
from tokbench.measure.training.schedule import share_of_rate

STATE_WEIGHT = 1.0
"""Of the distance between the head's state and the target's, beside the cross-entropy."""
SAID_EVERY = 25
EXAMINED_EVERY = 100
"""Steps, with the places that are held out."""
INITIAL_SCALE = 0.02
LAST_WEIGHTS = ("o_proj.weight", "down_proj.weight", "down_proj")
"""How the weights end that write into the sum of a block."""


class Recipe(NamedTuple):
    """How a head is trained."""

    steps: int = 400
    rows_per_step: int = 8
    learning_rate: float = 1e-3
    depths: int = 1
    """How far the head is chained in training."""
    scored_places: int = 256
    """Places per step and depth that go through the target's head: it costs more than the block."""
    seed: int = 1


class Trained(NamedTuple):
    """A head and what its training showed."""

    head: MtpHead
    facts: HeadFacts


def new_head(target: Any, seed: int) -> MtpHead:
    """An untrained head in float32 that hands the target's state through: the block adds nothing to it yet.

    To begin with the weights of the target's last block instead learns slower: that block expects a sum of all layers
    before it. Forty steps on SmolLM2-135M end at 5.1 nats and 13 % agreement with it, at 4.0 and 28 % from here.
    """
    parts = parts_of(target)
    torch.manual_seed(seed)
    width = parts.config.hidden_size
    with torch.device(target.device), torch.no_grad():
        head = MtpHead(parts).float()
        for name, weight in head.block.named_parameters():
            is_last = name.endswith(LAST_WEIGHTS)
            if weight.dim() < 2:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                weight.normal_(0.0, 0.0 if is_last else INITIAL_SCALE)
        head.merge.weight.normal_(0.0, INITIAL_SCALE)
        head.merge.weight[:, :width] += torch.eye(width)
    return head


class _Batch(NamedTuple):
    hidden: torch.Tensor
    tokens: torch.Tensor
    likeliest: torch.Tensor


class _Trainer:
    """One training: the head, its target's parts, and what was harvested."""

    def __init__(self, target: Any, harvested: Harvest, recipe: Recipe) -> None:
        self.parts: TargetParts = parts_of(target)
        self.head = new_head(target, recipe.seed)
        self.recipe = recipe
        self.course = list[tuple[int, float]]()
        self._harvest = harvested
        self._draw = torch.Generator().manual_seed(recipe.seed)
        self._optimiser = torch.optim.AdamW(self.head.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: share_of_rate(step, recipe.steps)
        )
        self._device = target.device
        places = torch.arange(harvested.tokens.shape[1] - 1, device=self._device)[None]
        like = harvested.hidden[:1].float().to(self._device)
        self._rotation = [part.float() for part in self.parts.rotary(like, places)]

    def batch(self, rows: torch.Tensor) -> _Batch:
        """Rows of the harvest, on the device."""
        taken = (part[rows].to(self._device) for part in self._harvest[:3])
        tokens, hidden, likeliest = taken
        return _Batch(hidden.float(), tokens, likeliest)

    def chain(self, batch: _Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Depth by depth: the head's states, the target's states there, and the tokens that it would say.

        Deeper ones attend to places of their own depth; a drafter's attend to the target's states, but for the last.
        """
        state = batch.hidden
        for depth in range(1, self.recipe.depths + 1):
            state = state[:, :-1]
            tokens = self.parts.embedding(batch.tokens[:, depth:]).float()
            rotation = tuple(part[:, : state.shape[1]] for part in self._rotation)
            state = self.head(state, tokens, rotation, None, None)
            yield state, batch.hidden[:, depth:], batch.likeliest[:, depth:]

    def loss(self, batch: _Batch) -> tuple[torch.Tensor, float]:
        """What is minimised, and the cross-entropy at depth 1 in nats."""
        total, first = torch.zeros((), device=self._device), math.nan
        for depth, (state, theirs, labels) in enumerate(self.chain(batch)):
            places = torch.randint(labels.numel(), (self.recipe.scored_places,), generator=self._draw)
            places = places.to(self._device)
            scores = self.parts.head(state.flatten(0, 1)[places].to(self.parts.head.weight.dtype)).float()
            said = torch.nn.functional.cross_entropy(scores, labels.flatten()[places])
            scale = theirs.pow(2).mean()
            apart = torch.nn.functional.mse_loss(state.float(), theirs) / scale
            total = total + (said + STATE_WEIGHT * apart) / (depth + 1)
            first = float(said.detach()) if depth == 0 else first
        return total, first

    def step(self) -> float:
        """One step down on rows drawn anew; the cross-entropy at depth 1 in nats."""
        taught = len(self._harvest.tokens) - self._harvest.held_out
        batch = self.batch(torch.randint(taught, (self.recipe.rows_per_step,), generator=self._draw))
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            total, said = self.loss(batch)
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self._optimiser.step()
        self._schedule.step()
        return said

    def state(self, step: int) -> dict[str, Any]:
        """Everything that the steps to come depend on."""
        moved = (self.head, self._optimiser, self._schedule)
        return {
            "step": step,
            "parts": [part.state_dict() for part in moved],
            "draw": self._draw.get_state(),
            "course": self.course,
        }

    def go_on(self, kept: dict[str, Any]) -> int:
        """Go on from what a checkpoint kept; the steps that are done."""
        for part, state in zip((self.head, self._optimiser, self._schedule), kept["parts"], strict=True):
            part.load_state_dict(state)
        self._draw.set_state(kept["draw"])
        self.course = [(int(step), float(share)) for step, share in kept["course"]]
        return int(kept["step"])

    @torch.inference_mode()
    def agreement(self) -> tuple[tuple[float, ...], int]:
        """Share of held-out places, of the target's own output alone, where the head says what the target says."""
        hits, count = [0] * self.recipe.depths, 0
        first = self._harvest.prompt_tokens
        rows = torch.arange(len(self._harvest.tokens) - self._harvest.held_out, len(self._harvest.tokens))
        for part in rows.split(self.recipe.rows_per_step):
            with torch.autocast(self._device.type, dtype=torch.bfloat16):
                for depth, (state, _, labels) in enumerate(self.chain(self.batch(part))):
                    kept = slice(first - 1 - depth, None)  # the same places of the output at every depth
                    guess = self.parts.head(state[:, kept].to(self.parts.head.weight.dtype)).argmax(-1)
                    hits[depth] += int((guess == labels[:, kept]).sum())
                    count += guess.numel() if depth == 0 else 0
        return tuple(hit / count for hit in hits), count


class Named(NamedTuple):
    """Whose head it is to be."""

    name: str
    source: str
    """The target's `model.source`."""


@torch.enable_grad()
def train_head(
    target: Any, harvested: Harvest, recipe: Recipe, named: Named, checkpoint: Checkpoint | None, say: Say
) -> Trained:
    """Train a head; a checkpoint of the same training lets it go on from there."""
    target.requires_grad_(False)
    trainer = _Trainer(target, harvested, recipe)
    found = checkpoint.read() if checkpoint is not None else None
    done = trainer.go_on(found) if found is not None else 0
    if done:
        say(f"training goes on from step {done}")
    begun, losses = time.monotonic(), list[float]()
    for step in range(done + 1, recipe.steps + 1):
        losses.append(trainer.step())
        if step % EXAMINED_EVERY == 0 and step < recipe.steps:
            trainer.course.append((step, trainer.agreement()[0][0]))
            say(f"step {step}: agrees on {trainer.course[-1][1]:.3f} of the places held out")
        if step % SAID_EVERY == 0:
            last = sum(losses[-SAID_EVERY:]) / len(losses[-SAID_EVERY:])
            say(f"step {step} of {recipe.steps}: {last:.2f} nats, {time.monotonic() - begun:.0f} s")
        if checkpoint is not None and step % KEPT_EVERY == 0 and step < recipe.steps:
            checkpoint.keep(trainer.state(step))
    seconds = time.monotonic() - begun
    agreed, counted = trainer.agreement()
    trainer.course.append((recipe.steps, agreed[0]))
    if checkpoint is not None:
        checkpoint.clear()
    facts = _facts(trainer, harvested, named, print_of(target), (losses, agreed, counted, seconds))
    return Trained(trainer.head.eval(), facts)


def _facts(
    trainer: _Trainer,
    harvested: Harvest,
    named: Named,
    target_print: str,
    seen: tuple[list[float], tuple[float, ...], int, float],
) -> HeadFacts:
    losses, agreed, counted, seconds = seen
    recipe, rows = trainer.recipe, len(harvested.tokens) - harvested.held_out
    places = harvested.tokens.shape[1] - 1
    last = losses[-SAID_EVERY:]
    return HeadFacts(
        target=named.name,
        source=named.source,
        target_print=target_print,
        shapes={name: tuple(tensor.shape) for name, tensor in trainer.head.state_dict().items()},
        steps=recipe.steps,
        positions=recipe.steps * recipe.rows_per_step * places,
        distinct_positions=rows * places,
        depths=recipe.depths,
        loss=sum(last) / len(last),
        held_out_agreement=agreed,
        held_out_positions=counted,
        course=tuple(trainer.course),
        seconds=seconds,
        harvest_s=harvested.seconds,
        seed=recipe.seed,
    )
