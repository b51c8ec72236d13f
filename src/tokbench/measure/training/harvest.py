"""A target's own text with its hidden states: what a head is distilled from. It trains nothing."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from tokbench.errors import SpecError
from tokbench.measure.engines.transformers.drafting.mtp_head import parts_of
from tokbench.measure.training.checkpoint import Checkpoint
from tokbench.measure.training.texts import Text, library_texts, questions

Say = Callable[[str], None]
CHAT_SHARE = 0.6
"""Rows that begin with a question, where the tokenizer knows a chat's form; the others continue source code."""
SAMPLED_SHARE = 0.5
"""Rows whose tokens are drawn at `TEMPERATURE`: greedy text alone falls into loops, and loops teach nothing."""
TEMPERATURE = 0.8
QUESTION = "{question}"


class Coder(Protocol):
    """Text to token ids, without special tokens."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""


class Asked(NamedTuple):
    """How much text to make."""

    rows: int
    prompt_tokens: int
    output_tokens: int
    seed: int
    rows_at_once: int = 64


class Harvest(NamedTuple):
    """Rows of prompt and output. The last `held_out` rows come from files that are never trained on."""

    tokens: torch.Tensor
    """(rows, tokens)"""
    hidden: torch.Tensor
    """(rows, tokens, width), bfloat16: what the target's final norm gave."""
    likeliest: torch.Tensor
    """(rows, tokens): what the target would say next at each place."""
    held_out: int
    prompt_tokens: int
    seconds: float


def chat_form(folder: Path) -> str | None:
    """A chat with one question in the form that the weights' own template gives it; None where they bring none.

    `QUESTION` stands where the question goes; the form ends where the answer begins.
    """
    from transformers import AutoTokenizer  # six seconds of imports

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    if not tokenizer.chat_template:
        return None
    asked = [{"role": "user", "content": QUESTION}]
    return str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))


def prompts(coder: Coder, asked: Asked, form: str | None) -> tuple[torch.Tensor, int]:
    """Token ids, (rows, prompt), and how many rows at the end are held out (a tenth, at least 8).

    Raises:
        SpecError: the library's sources do not give so many prompts of this length.
    """
    draw = random.Random(asked.seed)
    texts = library_texts()
    held_out = max(asked.rows // 10, 8)
    rows: list[list[int]] = []
    for is_held_out, count in ((False, asked.rows - held_out), (True, held_out)):
        chosen = [text for text in texts if text.is_held_out is is_held_out]
        draw.shuffle(chosen)
        taken = _take(coder, asked, form, chosen, count, draw)
        draw.shuffle(taken)  # so that drawn and greedy rows are of both kinds
        rows += taken
    return torch.tensor(rows, dtype=torch.long), held_out


def digest_of(ids: torch.Tensor) -> str:
    """SHA-256 of prompts."""
    return hashlib.sha256(ids.numpy().tobytes()).hexdigest()


def _take(
    coder: Coder, asked: Asked, form: str | None, texts: Sequence[Text], count: int, draw: random.Random
) -> list[list[int]]:
    chats = round(count * CHAT_SHARE) if form is not None else 0
    found: list[list[int]] = []
    for wanted, source in ((chats, _questions(texts, form or "", draw)), (count, _windows(texts, draw))):
        for text in source:
            if len(found) == wanted:
                break
            ids = coder.encode(text)
            if len(ids) >= asked.prompt_tokens:
                found.append(ids[-asked.prompt_tokens :] if wanted == chats else ids[: asked.prompt_tokens])
    if len(found) < count:
        message = (
            f"the standard library's sources give {len(found)} prompts of {asked.prompt_tokens} tokens, not {count}"
        )
        raise SpecError(message, fix=f"--rows {len(found)}")
    return found


def _questions(texts: Sequence[Text], form: str, draw: random.Random) -> Iterator[str]:
    for text in texts:
        for question in questions(text, draw):
            yield form.replace(QUESTION, question)


def _windows(texts: Sequence[Text], draw: random.Random) -> Iterator[str]:
    """Pieces of source from the beginning of a line; round and round, four to a file and turn."""
    for _ in range(64):
        for text in texts:
            at = text.content.find("\n", draw.randrange(len(text.content))) + 1
            yield text.content[at : at + 2000]


@torch.inference_mode()
def harvest(target: Any, ids: torch.Tensor, held_out: int, asked: Asked, kept: Checkpoint | None, say: Say) -> Harvest:
    """Let the target write on behind every prompt, and keep its states. Ends of text are not heeded, as in a run.

    Rows come in pieces, each with random numbers of its own; `kept` holds those that were made before a stop.
    """
    pieces: list[list[torch.Tensor]] = []
    before_s, begun = 0.0, time.monotonic()
    found = kept.read() if kept is not None else None
    if found is not None:
        pieces, before_s = found["pieces"], found["seconds"]
        say(f"text of the target: {sum(len(piece[0]) for piece in pieces)} rows were made before")
    for at in range(len(pieces) * asked.rows_at_once, len(ids), asked.rows_at_once):
        torch.manual_seed(asked.seed + at)
        rows = ids[at : at + asked.rows_at_once].to(target.device)
        pieces.append([part.cpu() for part in _write_on(target, rows, asked.output_tokens)])
        seconds = before_s + time.monotonic() - begun
        say(f"text of the target: {at + len(rows)} of {len(ids)} rows, {seconds:.0f} s")
        if kept is not None:
            kept.keep({"pieces": pieces, "seconds": seconds})
    tokens, hidden, likeliest = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return Harvest(tokens, hidden, likeliest, held_out, asked.prompt_tokens, before_s + time.monotonic() - begun)


def _write_on(target: Any, ids: torch.Tensor, output_tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, states and likeliest tokens of one batch; the first part of the rows is drawn, the others are greedy."""
    from transformers import DynamicCache

    parts, cache = parts_of(target), DynamicCache(config=target.config)
    drawn = round(len(ids) * SAMPLED_SHARE)
    tokens, hidden, likeliest = [ids], [], []
    fed = ids
    for step in range(output_tokens + 1):
        state = target.model(fed, past_key_values=cache, use_cache=True).last_hidden_state
        best = torch.cat([parts.head(piece).argmax(-1) for piece in state.split(8)])  # of a prompt, row by row
        hidden.append(state.to(torch.bfloat16))
        likeliest.append(best)
        if step == output_tokens:
            break
        fed = best[:, -1:].clone()
        chances = torch.softmax(parts.head(state[:drawn, -1]).float() / TEMPERATURE, dim=-1)
        fed[:drawn] = torch.multinomial(chances, 1)
        tokens.append(fed)
    return torch.cat(tokens, 1), torch.cat(hidden, 1), torch.cat(likeliest, 1)
