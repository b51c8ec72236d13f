"""The MTP head: one decoder block that looks one token further than the target. It neither trains nor drafts by itself.

At place t it takes the target's last hidden state at t (after the final norm) and the embedding of token t + 1, and
gives a hidden state in the place of the target's at t + 1: the target's own head makes logits for token t + 2 of it.
Chained, its own output goes in where the target's state went in. Embedding and head stay the target's: no copy of them.
Source of the design: DeepSeek-V3 technical report, arXiv:2412.19437, 2.2, read 2026-11-22.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tokbench.errors import PlugError
from tokbench.measure.engines.transformers.loading import stored_tensors
from tokbench.measure.models import cache_folder
from tokbench.record.facts import Frozen

WEIGHTS_FILE, FACTS_FILE = "mtp.safetensors", "mtp.json"
PRINTED_AT_ONCE = 1 << 20
"""Weights that are printed in one piece: eight bytes each while they are."""
ODD = 0x1E3779B97F4A7C15
"""Spreads a place over 64 bits: odd, so that no two places share a factor."""


class TargetParts(NamedTuple):
    """What a head takes from its target, as references."""

    config: Any
    layers: Any
    norm: Any
    embedding: Any
    rotary: Any
    head: Any


class HeadFacts(Frozen):
    """What is known of a trained head; `mtp.json` beside its weights."""

    label: str = "trained here"
    target: str
    """Name of the model that it was trained for."""
    source: str
    """Its `model.source`."""
    target_print: str
    """Of all its weights, as `print_of` makes it."""
    shapes: dict[str, tuple[int, ...]]
    steps: int
    positions: int
    """Places (hidden state, token) that training went over, repeated ones counted again."""
    distinct_positions: int
    depths: int
    """How far the head was chained while it was trained."""
    loss: float
    """Cross-entropy in nats of the last steps, at depth 1."""
    held_out_agreement: tuple[float, ...]
    """Share of places where the likeliest token was the target's, by depth, on rows that training never saw."""
    held_out_positions: int
    course: tuple[tuple[int, float], ...] = ()
    """After so many steps, the share at depth 1."""
    seconds: float
    """Of training alone, since it last went on from a checkpoint; the target's text and states came before."""
    harvest_s: float
    seed: int

    def describe(self) -> str:
        """One line for the record."""
        agreed = ", ".join(f"{share:.2f}" for share in self.held_out_agreement)
        return (
            f"MTP head, {self.label}: {self.steps} steps on {self.distinct_positions} places of the target's own text;"
            f" agrees with the target on {agreed} of {self.held_out_positions} held-out places by depth"
        )


def parts_of(target: Any) -> TargetParts:
    """The parts of a causal language model that a head builds on.

    Raises:
        PlugError: the model is not built like Llama's.
    """
    body = getattr(target, "model", None)
    names = ("layers", "norm", "embed_tokens", "rotary_emb")
    if body is None or not all(hasattr(body, name) for name in names) or not hasattr(target, "lm_head"):
        raise PlugError(
            f"{type(target).__name__} is not built as an MTP head needs it (layers, norm, rotary embedding, head)",
            fix="speculation.method: prompt_lookup",
        )
    return TargetParts(target.config, body.layers, body.norm, body.embed_tokens, body.rotary_emb, target.lm_head)


class MtpHead(torch.nn.Module):
    """Two norms, a projection of 2 widths to 1, a decoder block of the target's shape, a final norm."""

    def __init__(self, parts: TargetParts) -> None:
        super().__init__()
        width = int(parts.config.hidden_size)
        self.norm_hidden, self.norm_token, self.norm = (copy.deepcopy(parts.norm) for _ in range(3))
        for norm in (self.norm_hidden, self.norm_token):
            torch.nn.init.ones_(norm.weight)
        self.merge = torch.nn.Linear(2 * width, width, bias=False)
        self.block = type(parts.layers[-1])(parts.config, layer_idx=0)

    def forward(
        self, hidden: torch.Tensor, tokens: torch.Tensor, rotation: Any, mask: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        """Hidden states one place further, (rows, tokens, width), for the target's head.

        `hidden`: the target's, or the head's own, at places t; `tokens`: embeddings of tokens t + 1, same shape;
        `rotation`: cosines and sines of places t; `mask`: None is causal over what is given here; `cache`: None keeps
        nothing.
        """
        merged = self.merge(torch.cat((self.norm_hidden(hidden), self.norm_token(tokens)), dim=-1))
        found = self.block(
            merged,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=cache is not None,
            position_embeddings=rotation,
        )
        state: torch.Tensor = self.norm(found)
        return state


def print_of(target: Any) -> str:
    """SHA-256 of the names, shapes and sums of all weights: a target that differs in one of them has another print.

    Weights in floating point count in bfloat16, so that a model has one print in float32 and in bfloat16; what differs
    by less does not show. Quantised ones count as they are stored. Buffers are not read.
    """
    digest = hashlib.sha256()
    for name, weight in target.named_parameters():
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        for stored in stored_tensors(weight):
            digest.update(sum_of(stored.detach()).to_bytes(8, "little", signed=True))
    return digest.hexdigest()


def sum_of(weights: torch.Tensor) -> int:
    """The bits of all numbers of a tensor, each times an odd number of its place, summed up modulo 2^64.

    Worked out where the tensor lies, since to copy and hash a large model may take longer than to load it. One number
    that differs always changes the sum.
    """
    plain = weights.to(torch.bfloat16).view(torch.int16) if weights.is_floating_point() else weights
    total = torch.zeros((), dtype=torch.int64, device=plain.device)
    for first, piece in enumerate(plain.reshape(-1).split(PRINTED_AT_ONCE)):
        places = torch.arange(len(piece), device=piece.device) + first * PRINTED_AT_ONCE
        total += (piece.to(torch.int64) * (places * ODD | 1)).sum()
    return int(total)


def head_folder(environ: Mapping[str, str], target_print: str) -> Path:
    """Where the head of a target is kept unless a folder is named."""
    return cache_folder(environ) / "heads" / target_print[:16]


def save_head(folder: Path, head: MtpHead, facts: HeadFacts) -> None:
    """Write weights in bfloat16 and facts; both files are replaced, each at once."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in head.state_dict().items()
    }
    beside = f".{os.getpid()}"  # a run may be loading the head that is replaced
    save_file(tensors, str(folder / (WEIGHTS_FILE + beside)))
    (folder / (FACTS_FILE + beside)).write_text(facts.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for name in (WEIGHTS_FILE, FACTS_FILE):
        (folder / (name + beside)).replace(folder / name)


class Target(NamedTuple):
    """The model that a head is looked for."""

    model: Any
    own_print: str
    """As `print_of` makes it."""
    name: str
    source: str
    """Its `model.source`."""


def load_head(folder: Path, target: Target) -> tuple[MtpHead, HeadFacts]:
    """A trained head in the target's type, on its device.

    Raises:
        PlugError: there is none, it was trained for another target, or its files are broken.
    """
    how = f"tokbench train mtp --model {target.source}"
    if not (folder / FACTS_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise PlugError(f"no MTP head for {target.name}: {folder} holds no {FACTS_FILE} and {WEIGHTS_FILE}", fix=how)
    try:
        facts = HeadFacts.model_validate(json.loads((folder / FACTS_FILE).read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise PlugError(f"{folder / FACTS_FILE} cannot be read: {error}", fix=how) from None
    if facts.target_print != target.own_print:
        raise PlugError(f"the MTP head in {folder} was trained for {facts.target}, not for {target.name}", fix=how)
    parts = parts_of(target.model)
    with torch.device(target.model.device):
        head = MtpHead(parts).to(target.model.dtype)
    try:
        head.load_state_dict(load_file(str(folder / WEIGHTS_FILE)))
    except (RuntimeError, SafetensorError) as error:
        raise PlugError(f"{folder / WEIGHTS_FILE} does not fit {target.name}: {error}", fix=how) from None
    return head.eval().requires_grad_(False), facts
