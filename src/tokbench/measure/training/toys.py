"""A toy target and a toy draft, trained together on the text that comes with Python and saved in bfloat16.

Their weights were never in fewer bits, so that acceptance between them flatters nobody; they know what Python and its
manual look like, and no more. The target learns the text, the draft learns the target.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tokbench.measure.models import TRAINED_FILE
from tokbench.measure.training.baselines import count_baselines
from tokbench.measure.training.checkpoint import KEPT_EVERY, Checkpoint
from tokbench.measure.training.optimisers import Optimisers
from tokbench.measure.training.texts import Corpus, Text

END = "<|endoftext|>"
SAID_EVERY = 25
EXAMINED_ROWS = 128
HEAD_WIDTH = 32
"""Of an attention head: several heads even in a draft of two."""
Say = Callable[[str], None]


class Size(NamedTuple):
    """Shape of one model of a pair."""

    layers: int
    width: int

    @property
    def name(self) -> str:
        """As in the name of its folder."""
        return f"{self.layers}x{self.width}"


class PairRecipe(NamedTuple):
    """How a pair is trained."""

    vocabulary: int
    target: Size
    draft: Size
    steps: int
    rows_per_step: int = 16
    tokens_per_row: int = 256
    matrix_rate: float = 0.02
    learning_rate: float = 3e-3
    seed: int = 1


SMALL = PairRecipe(1024, Size(4, 128), Size(1, 64), steps=400)
"""For two processor cores that others use too: 1.0 and 0.12 million weights."""
MEDIUM = PairRecipe(2048, Size(4, 256), Size(2, 96), steps=3000)
"""For two processor cores and some hours: 3.9 and 0.44 million weights."""
LARGE = PairRecipe(8192, Size(12, 768), Size(2, 256), steps=4000, rows_per_step=64, tokens_per_row=512)
"""For a GPU: 120 and 4.4 million weights."""


class Examined(NamedTuple):
    """What the pair knows of text that was never trained on, as it is saved: in bfloat16."""

    places: int
    target_loss: float
    """Nats per token, as the next three."""
    draft_loss: float
    unigram_loss: float
    bigram_loss: float
    agreement: float
    """Share of places where both find the same token likeliest: what greedy drafting accepts behind this text."""
    overlap: float
    """Mean sum of the smaller of both probabilities of a token: what drafting by draws accepts behind this text."""


class PairFacts(NamedTuple):
    """What training showed."""

    text: str
    text_sha256: str
    steps: int
    planned: tuple[tuple[int, int], ...]
    """From which step on the rate fell towards the end of how many: more than one where a stop changed the plan."""
    tokens: int
    """That both models were trained on, repeated ones counted again."""
    distinct_tokens: int
    target_parameters: int
    draft_parameters: int
    held_out: Examined
    seconds: float
    """Of the command that ended it; one that went on from a checkpoint counts its own."""

    def describe(self) -> str:
        """Losses beside those of counting, in one line."""
        seen = self.held_out
        return (
            f"held out: target {seen.target_loss:.2f} nats a token, draft {seen.draft_loss:.2f}, counting bigrams "
            f"{seen.bigram_loss:.2f}, unigrams {seen.unigram_loss:.2f}; of {seen.places} places both find the same "
            f"token likeliest at {seen.agreement:.2f}, their distributions share {seen.overlap:.2f}"
        )


class Pair(NamedTuple):
    """Both models, their tokenizer, and what was seen."""

    recipe: PairRecipe
    target: Any
    draft: Any
    coder: Any
    facts: PairFacts


def train_coder(texts: list[Text], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer of so many tokens, from the texts that are not held out."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    coder = Tokenizer(models.BPE())
    coder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    coder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator((text.content for text in texts if not text.is_held_out), trainer)
    return coder


def encode(coder: Any, texts: list[Text], is_held_out: bool) -> torch.Tensor:
    """All tokens of one side, text behind text with an end between them: (tokens,)."""
    found: list[int] = []
    end = coder.token_to_id(END)
    for coded in coder.encode_batch([text.content for text in texts if text.is_held_out is is_held_out]):
        found += coded.ids
        found.append(end)
    return torch.tensor(found, dtype=torch.int32)


def new_model(size: Size, coder: Any, tokens: int, device: str) -> Any:
    """A Llama of a shape with tied embeddings and random weights, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = size.width // HEAD_WIDTH
    config = LlamaConfig(
        vocab_size=coder.get_vocab_size(),
        hidden_size=size.width,
        intermediate_size=size.width * 3,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max(tokens, 2048),
        tie_word_embeddings=True,
        bos_token_id=coder.token_to_id(END),
        eos_token_id=coder.token_to_id(END),
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).to(device)


class _Training:
    """Both models while they are trained."""

    def __init__(self, recipe: PairRecipe, coder: Any, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, torch.device(device)
        self.target = new_model(recipe.target, coder, recipe.tokens_per_row, device)
        self.draft = new_model(recipe.draft, coder, recipe.tokens_per_row, device)
        self._optimisers = Optimisers([self.target, self.draft], recipe.matrix_rate, recipe.learning_rate, recipe.steps)
        self._draw = torch.Generator().manual_seed(recipe.seed)
        self.planned = [(0, recipe.steps)]

    def rows(self, tokens: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Windows of the text, (rows, tokens + 1), on the device."""
        places = starts[:, None] + torch.arange(self.recipe.tokens_per_row + 1)
        return tokens[places].long().to(self.device)

    def step(self, taught: torch.Tensor) -> tuple[float, float]:
        """One step: cross-entropy of the target with the text, and of the draft with the target, in nats."""
        last = len(taught) - self.recipe.tokens_per_row - 1
        rows = self.rows(taught, torch.randint(last, (self.recipe.rows_per_step,), generator=self._draw))
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            theirs, ours = self.target(rows[:, :-1]).logits.float(), self.draft(rows[:, :-1]).logits.float()
        said = torch.nn.functional.cross_entropy(theirs.flatten(0, 1), rows[:, 1:].flatten())
        shares = torch.softmax(theirs.detach(), -1)
        followed = torch.nn.functional.cross_entropy(ours.flatten(0, 1), shares.flatten(0, 1))
        self._optimisers.step(said + followed)
        return said.item(), followed.item()

    def state(self, step: int) -> dict[str, Any]:
        """Everything that the steps to come depend on."""
        models = [self.target.state_dict(), self.draft.state_dict()]
        kept = {"optimisers": self._optimisers.state(), "draw": self._draw.get_state(), "planned": self.planned}
        return {"step": step, "models": models, **kept}

    def go_on(self, kept: dict[str, Any]) -> int:
        """Go on from what a checkpoint kept; the steps that are done."""
        for model, weights in zip((self.target, self.draft), kept["models"], strict=True):
            model.load_state_dict(weights)
        self._optimisers.load(kept["optimisers"])
        self._draw.set_state(kept["draw"])
        done, now = int(kept["step"]), self.planned[-1][1]
        before = [(int(since), int(steps)) for since, steps in kept["planned"]]
        self.planned = before if before[-1][1] == now else [*before, (done, now)]
        return done

    @torch.inference_mode()
    def examine(self, taught: torch.Tensor, kept: torch.Tensor) -> Examined:
        """Losses and likeness on rows from all over the held-out text, in the type that the models have now."""
        width = self.recipe.tokens_per_row
        starts = torch.linspace(0, len(kept) - width - 1, EXAMINED_ROWS).long()
        sums = torch.zeros(4, dtype=torch.double)
        for part in starts.split(self.recipe.rows_per_step):
            rows = self.rows(kept, part)
            both = [model(rows[:, :-1]).logits.float().log_softmax(-1) for model in (self.target, self.draft)]
            said = [-each.gather(-1, rows[:, 1:, None]).sum() for each in both]
            equal = (both[0].argmax(-1) == both[1].argmax(-1)).sum()
            shared = torch.minimum(*both).exp().sum()
            sums += torch.stack((*said, equal, shared)).double().cpu()
        target, draft, equal, shared = (sums / (len(starts) * width)).tolist()
        counted = count_baselines(taught, self.rows(kept, starts).cpu(), self.recipe.vocabulary)
        return Examined(len(starts) * width, target, draft, counted.unigram, counted.bigram, equal, shared)


@torch.enable_grad()
def train_pair(recipe: PairRecipe, corpus: Corpus, device: str, out: Path, say: Say) -> Pair:
    """Train tokenizer, target and draft; a checkpoint in `out` lets it go on after a stop, with other steps too."""
    begun = time.monotonic()
    coder = train_coder(corpus.texts, recipe.vocabulary)
    recipe = recipe._replace(vocabulary=coder.get_vocab_size())  # a short text gives fewer
    taught, kept = (encode(coder, corpus.texts, side) for side in (False, True))
    say(f"{corpus.label}: {len(taught)} tokens, {len(kept)} held out, {time.monotonic() - begun:.0f} s")
    training = _Training(recipe, coder, device)
    steps = _take_steps(training, taught, Checkpoint(out, f"pair {recipe._replace(steps=0)} {corpus.sha256}"), say)
    for model in (training.target, training.draft):
        model.to(torch.bfloat16).eval()
    facts = PairFacts(
        text=corpus.label,
        text_sha256=corpus.sha256,
        steps=steps,
        planned=tuple(training.planned),
        tokens=steps * recipe.rows_per_step * recipe.tokens_per_row,
        distinct_tokens=len(taught),
        target_parameters=training.target.num_parameters(),
        draft_parameters=training.draft.num_parameters(),
        held_out=training.examine(taught, kept),
        seconds=time.monotonic() - begun,
    )
    return Pair(recipe, training.target, training.draft, coder, facts)


def _take_steps(training: _Training, taught: torch.Tensor, checkpoint: Checkpoint, say: Say) -> int:
    """Train to the end; the steps that were taken in all."""
    steps, begun = training.recipe.steps, time.monotonic()
    found = checkpoint.read()
    done = training.go_on(found) if found is not None else 0
    if done:
        say(f"goes on from step {done}, as {checkpoint.path} kept it")
    losses: list[tuple[float, float]] = []
    for step in range(done + 1, steps + 1):
        losses.append(training.step(taught))
        if step % SAID_EVERY == 0 or step == steps:
            said, followed = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            nats = f"target {said:.2f} nats, draft on target {followed:.2f}"
            say(f"step {step} of {steps}: {nats}, {time.monotonic() - begun:.0f} s")
            losses = []
        if step % KEPT_EVERY == 0 or step == steps:
            checkpoint.keep(training.state(step))
    return max(done, steps)


def save_pair(out: Path, pair: Pair) -> tuple[Path, Path]:
    """Two folders that `path:DIR` can load: config, safetensors in bfloat16, tokenizer, and how they were trained."""
    recipe, facts, folders = pair.recipe, pair.facts, []
    losses = {"target": facts.held_out.target_loss, "draft": facts.held_out.draft_loss}
    for role, model, size in (("target", pair.target, recipe.target), ("draft", pair.draft, recipe.draft)):
        folder = out / f"toy-{role}-{size.name}"
        folder.mkdir(parents=True, exist_ok=True)
        model.to(torch.bfloat16).save_pretrained(str(folder))
        pair.coder.save(str(folder / "tokenizer.json"))
        note = (
            f"toy, trained here: {role} of a pair, {facts.steps} steps on {facts.tokens} tokens of the {facts.text} "
            f"(SHA-256 {facts.text_sha256[:12]}), {losses[role]:.2f} nats a token on text held out, where counting "
            f"bigrams comes to {facts.held_out.bigram_loss:.2f}; kept in bfloat16, never in fewer bits"
        )
        plain = {
            "note": note,
            "role": role,
            "recipe": recipe._asdict(),
            **facts._asdict(),
            "held_out": facts.held_out._asdict(),
        }
        (folder / TRAINED_FILE).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        folders.append(folder)
    Checkpoint(out, "").clear()
    return folders[0], folders[1]
