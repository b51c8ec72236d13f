"""A toy target and a toy draft, trained together on the standard library's sources and saved in bfloat16.

Their weights were never in fewer bits, so that acceptance between them flatters nobody; they know little else than
Python's look. The target learns the text, the draft learns the target.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tokbench.measure.models import TRAINED_FILE
from tokbench.measure.training.schedule import share_of_rate
from tokbench.measure.training.texts import Text

END = "<|endoftext|>"
SAID_EVERY = 50
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
    rows_per_step: int = 8
    tokens_per_row: int = 256
    learning_rate: float = 2e-3
    seed: int = 1


SMALL = PairRecipe(1024, Size(4, 256), Size(1, 128), steps=500)
"""For two processor cores."""
LARGE = PairRecipe(
    8192, Size(12, 768), Size(2, 256), steps=4000, rows_per_step=64, tokens_per_row=512, learning_rate=6e-4
)
"""For a GPU."""


class PairFacts(NamedTuple):
    """What training showed."""

    tokens: int
    """That both models were trained on, repeated ones counted again."""
    distinct_tokens: int
    target_loss: float
    """Nats per token on files that were never trained on."""
    draft_loss: float
    agreement: float
    """Share of held-out places where both find the same token likeliest."""
    held_out_places: int
    seconds: float


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
    """All tokens of one side, file behind file with an end between them: (tokens,)."""
    found: list[int] = []
    end = coder.token_to_id(END)
    for coded in coder.encode_batch([text.content for text in texts if text.is_held_out is is_held_out]):
        found += coded.ids
        found.append(end)
    return torch.tensor(found, dtype=torch.int32)


def new_model(size: Size, coder: Any, tokens: int, device: str) -> Any:
    """A Llama of a shape with tied embeddings and random weights, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=coder.get_vocab_size(),
        hidden_size=size.width,
        intermediate_size=size.width * 3,
        num_hidden_layers=size.layers,
        num_attention_heads=max(size.width // 64, 1),
        num_key_value_heads=max(size.width // 128, 1),
        max_position_embeddings=max(tokens, 2048),
        tie_word_embeddings=True,
        bos_token_id=coder.token_to_id(END),
        eos_token_id=coder.token_to_id(END),
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).to(device)


class _Pair:
    """Both models while they are trained."""

    def __init__(self, recipe: PairRecipe, coder: Any, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.target = new_model(recipe.target, coder, recipe.tokens_per_row, device)
        self.draft = new_model(recipe.draft, coder, recipe.tokens_per_row, device)

    def rows(self, tokens: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        """Windows of the text, (rows, tokens + 1), on the device."""
        places = starts[:, None] + torch.arange(self.recipe.tokens_per_row + 1)
        return tokens[places].long().to(self.device)

    def losses(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of the target with the text, and of the draft with the target, in nats."""
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16):
            theirs, ours = self.target(rows[:, :-1]).logits.float(), self.draft(rows[:, :-1]).logits.float()
        said = torch.nn.functional.cross_entropy(theirs.flatten(0, 1), rows[:, 1:].flatten())
        shares = torch.softmax(theirs.detach(), -1)
        return said, torch.nn.functional.cross_entropy(ours.flatten(0, 1), shares.flatten(0, 1))

    @torch.inference_mode()
    def examine(self, tokens: torch.Tensor) -> tuple[float, float, float, int]:
        """Both losses on text, the share of equal likeliest tokens, and over how many places."""
        width = self.recipe.tokens_per_row
        starts = torch.arange(0, len(tokens) - width - 1, width)[:64]
        seen = []
        for part in starts.split(self.recipe.rows_per_step):
            rows = self.rows(tokens, part)
            with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16):
                both = [model(rows[:, :-1]).logits.float() for model in (self.target, self.draft)]
            said = [torch.nn.functional.cross_entropy(each.flatten(0, 1), rows[:, 1:].flatten()) for each in both]
            equal = (both[0].argmax(-1) == both[1].argmax(-1)).float().mean()
            seen.append(torch.stack((*said, equal)).double().cpu() * len(part))
        target, draft, equal = (torch.stack(seen).sum(0) / len(starts)).tolist()
        return target, draft, equal, len(starts) * width


@torch.enable_grad()
def train_pair(recipe: PairRecipe, texts: list[Text], device: str, say: Say) -> tuple[_Pair, Any, PairFacts]:
    """Train tokenizer, target and draft; the pair, the tokenizer, and what was seen."""
    begun = time.monotonic()
    coder = train_coder(texts, recipe.vocabulary)
    taught, kept = (encode(coder, texts, side) for side in (False, True))
    say(f"{len(taught)} tokens of the standard library, {len(kept)} held out, {time.monotonic() - begun:.0f} s")
    pair = _Pair(recipe, coder, device)
    weights = [*pair.target.parameters(), *pair.draft.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: share_of_rate(step, recipe.steps))
    for step, starts in enumerate(_starts(recipe, len(taught))):
        said, followed = pair.losses(pair.rows(taught, starts))
        optimiser.zero_grad(set_to_none=True)
        (said + followed).backward()
        for model in (pair.target, pair.draft):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if (step + 1) % SAID_EVERY == 0:
            nats = f"target {said.item():.2f} nats, draft on target {followed.item():.2f}"
            say(f"step {step + 1} of {recipe.steps}: {nats}, {time.monotonic() - begun:.0f} s")
    trained = recipe.steps * recipe.rows_per_step * recipe.tokens_per_row
    target_loss, draft_loss, agreement, places = pair.examine(kept)
    seconds = time.monotonic() - begun
    facts = PairFacts(trained, len(taught), target_loss, draft_loss, agreement, places, seconds)
    return pair, coder, facts


def _starts(recipe: PairRecipe, tokens: int) -> Iterator[torch.Tensor]:
    """Where the windows of each step begin."""
    draw = torch.Generator().manual_seed(recipe.seed)
    for _ in range(recipe.steps):
        yield torch.randint(tokens - recipe.tokens_per_row - 1, (recipe.rows_per_step,), generator=draw)


def save_pair(out: Path, pair: _Pair, coder: Any, facts: PairFacts) -> tuple[Path, Path]:
    """Two folders that `path:DIR` can load: config, safetensors in bfloat16, tokenizer, and how they were trained."""
    recipe, folders = pair.recipe, []
    for role, model, size in (("target", pair.target, recipe.target), ("draft", pair.draft, recipe.draft)):
        folder = out / f"toy-{role}-{size.name}"
        folder.mkdir(parents=True, exist_ok=True)
        model.to(torch.bfloat16).save_pretrained(str(folder))
        coder.save(str(folder / "tokenizer.json"))
        loss = facts.target_loss if role == "target" else facts.draft_loss
        note = (
            f"toy, trained here: {recipe.steps} steps on {facts.tokens} tokens of the standard library's sources,"
            f" {loss:.2f} nats a token on files held out; kept in bfloat16, never in fewer bits"
        )
        plain = {"note": note, "role": role, "recipe": recipe._asdict(), **facts._asdict()}
        (folder / TRAINED_FILE).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        folders.append(folder)
    return folders[0], folders[1]
