"""A tiny llama that reads bytes, as files: with a tokenizer, and trained a little so that it foresees something."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

from tokbench.record.catalog import find_model

STEPS, ROWS, LENGTH = 60, 8, 64


def write_byte_model(folder: Path, steps: int = STEPS) -> Path:
    """Weights of the shape tiny-llama after `steps` of training on the frozen text, and a tokenizer of 256 bytes."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    with torch.enable_grad():
        model: Any = AutoModelForCausalLM.from_config(LlamaConfig(**find_model("tiny-llama").config))
        _train(model, steps)
    model.save_pretrained(folder)
    _tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _train(model: Any, steps: int) -> None:
    import torch

    text = (importlib.resources.files("tokbench.data") / "prompts" / "quality.txt").read_text(encoding="utf-8")
    ids = torch.tensor(_tokenizer().encode(text[:20_000]).ids)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        starts = torch.randint(len(ids) - LENGTH, (ROWS,))
        rows = torch.stack([ids[start : start + LENGTH] for start in starts.tolist()])
        optimiser.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimiser.step()
