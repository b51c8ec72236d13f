"""How well a model foresees a frozen text: the negative log-likelihood of each chunk. It computes no mean and no loss.

The text is our own, prose and code in turn (`data/prompts/quality.txt`), so that two precisions of the same weights can
be set beside each other chunk by chunk. docs/design/precision-lab.md tells what may be read off and what may not.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from tokbench.errors import PlugError, TrialError
from tokbench.measure.engines import CellWork, StepEngine, TorchEngine
from tokbench.record.observations import ExperimentPoint
from tokbench.record.spec import CellSpec, ExperimentSpec

DESCRIPTION = (
    "negative log-likelihood of a frozen text, chunk by chunk (options: tokens, default 4096, 0 for all; chunk, "
    "default 512; text, default quality)"
)
DEFAULTS = {"tokens": 4096, "chunk": 512, "text": "quality"}
PRETRAINED = "model.weights=pretrained, of a model that brings a tokenizer"


class _Setting(NamedTuple):
    """The options, read."""

    tokens: int
    """0 for all of the text."""
    chunk: int
    text: str


class _Chunks(NamedTuple):
    """A text cut into pieces of the same number of tokens; what is left over is dropped."""

    text: str
    sha256: str
    ids: tuple[tuple[int, ...], ...]


def check(spec: ExperimentSpec, cell: CellSpec) -> None:
    """Refuse wrong options, and weights that bring no tokenizer.

    Raises:
        PlugError: an unknown option or text, a number out of range, or random weights.
    """
    setting = _read(spec)
    _read_text(setting.text)
    if cell.model.weights == "random":
        raise PlugError("experiment nll needs a tokenizer, and random weights have none", fix=PRETRAINED)


def run(engine: StepEngine, work: CellWork, spec: ExperimentSpec, trial_id: str) -> Iterator[ExperimentPoint]:
    """A point per chunk: the nats of its tokens after the first, each foreseen from those before it in the chunk.

    Raises:
        PlugError: an unknown option or text, or an engine that shows no model or tokenizer.
        TrialError: the model's numbers overflowed.
    """
    chunks = _cut(engine, spec)
    if not isinstance(engine, TorchEngine):
        raise PlugError("experiment nll needs an engine that shows its model", fix="engine.kind=transformers")
    for index, ids in enumerate(chunks.ids):
        begun = engine.sync()
        nats = _nats(engine.model, ids)
        ended = engine.sync()
        if not math.isfinite(nats):
            raise TrialError(
                f"chunk {index} of {chunks.text}: {nats} nats, the model's numbers overflow", cause="engine"
            )
        yield ExperimentPoint(
            trial_id=trial_id,
            window_id=f"{trial_id}/experiment/{index}",
            experiment="nll",
            settings={"text": chunks.text, "sha256": chunks.sha256, "chunk": index},
            duration_s=(ended - begun) * 1e-9,
            stamped_by="host",
            values={"nats": nats, "tokens": len(ids) - 1},
        )
    engine.rewind(0)


def _nats(model: Any, ids: tuple[int, ...]) -> float:
    """Nats of all tokens but the first, summed in float64 from float32 log-probabilities; `ids`: (tokens,)."""
    import torch  # only where an engine is

    with torch.inference_mode():
        device = next(model.parameters()).device
        row = torch.tensor([ids], dtype=torch.long, device=device)
        logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
        each = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none")
        return float(each.double().sum())


def _read(spec: ExperimentSpec) -> _Setting:
    unknown = set(spec.options) - set(DEFAULTS)
    if unknown:
        fix = f"known: {', '.join(DEFAULTS)}"
        raise PlugError(f"experiment.options: nll does not know {', '.join(sorted(unknown))}", fix=fix)
    wanted, size = _count(spec, "tokens", 0), _count(spec, "chunk", 2)
    if 0 < wanted < size:
        fix = f"experiment.options.chunk: at most {wanted}"
        raise PlugError(f"experiment.options.tokens: {wanted} are fewer than one chunk of {size}", fix=fix)
    return _Setting(wanted, size, str(spec.options.get("text", DEFAULTS["text"])))


def _cut(engine: StepEngine, spec: ExperimentSpec) -> _Chunks:
    setting = _read(spec)
    if engine.tokenizer is None:
        raise PlugError("experiment nll needs a tokenizer, and these weights came without one", fix=PRETRAINED)
    content, size = _read_text(setting.text), setting.chunk
    ids = engine.tokenizer.encode(content.decode("utf-8"))
    ids = ids[: setting.tokens] if setting.tokens else ids
    pieces = tuple(tuple(ids[start : start + size]) for start in range(0, len(ids) - size + 1, size))
    if not pieces:
        fix = f"experiment.options.chunk: at most {len(ids)}"
        raise PlugError(f"{len(ids)} tokens of {setting.text} are fewer than one chunk of {size}", fix=fix)
    return _Chunks(setting.text, hashlib.sha256(content).hexdigest(), pieces)


def _count(spec: ExperimentSpec, name: str, least: int) -> int:
    value = spec.options.get(name, DEFAULTS[name])
    if type(value) is not int or value < least:
        raise PlugError(f"experiment.options.{name}: {value!r} is no whole number of {least} or more", fix="e.g. 512")
    return value


def _read_text(name: str) -> bytes:
    folder = importlib.resources.files("tokbench.data") / "prompts"
    texts = {item.name.removesuffix(".txt"): item for item in folder.iterdir() if item.name.endswith(".txt")}
    if name not in texts:
        raise PlugError(f"experiment.options.text: there is no {name!r}", fix=f"known: {', '.join(sorted(texts))}")
    return texts[name].read_bytes()
