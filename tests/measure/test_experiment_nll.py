"""Nats of a frozen text, chunk by chunk: what they are, that fewer bits add to them, what is refused."""

from __future__ import annotations

import hashlib
import importlib.resources
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("torchao")

from byte_models import write_byte_model  # noqa: E402
from scripted_measure import engine_request  # noqa: E402
from tiny_engines import request, work  # noqa: E402
from tokbench.errors import PlugError, TrialError  # noqa: E402
from tokbench.measure.engines.fake import open_engine as open_fake  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.experiments import nll  # noqa: E402
from tokbench.record.observations import ExperimentPoint  # noqa: E402
from tokbench.record.spec import ExperimentSpec  # noqa: E402

CHUNK, CHUNKS = 64, 6
FROZEN = {
    "quality.txt": "b940df60cc5a1fec97a42f472dc9c1776ee063e6cf63bad7ed81f5bb31daf04e",
    "reasoning.yaml": "b00c61b3e50d3b236f25e8052f5b47497e0f9bbb12c832ac4b9874c984688511",
}
"""What records and verdicts refer to: another text or question is another file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_model(tmp_path_factory.mktemp("bytes"))


def opened(folder: Path | None, dtype: str = "float32", mode: str = "eager") -> TransformersEngine:
    engine = TransformersEngine(request(mode=mode, dtype=dtype, folder=folder))
    engine.prepare(work(output_tokens=4))
    return engine


def points(engine: Any, **options: Any) -> list[ExperimentPoint]:
    spec = ExperimentSpec(kind="nll", options={"tokens": CHUNK * CHUNKS, "chunk": CHUNK, **options})
    return list(nll.run(engine, work(output_tokens=4), spec, "t"))


def per_token(found: list[ExperimentPoint]) -> float:
    return sum(point.values["nats"] for point in found) / sum(point.values["tokens"] for point in found)


def test_every_chunk_is_read_once_and_scored_as_torch_scores_it(folder: Path) -> None:
    engine = opened(folder)
    found = points(engine)
    content = (importlib.resources.files("tokbench.data") / "prompts" / "quality.txt").read_bytes()
    assert engine.tokenizer is not None
    ids = engine.tokenizer.encode(content.decode())

    assert list(range(CHUNKS)) == [point.settings["chunk"] for point in found]
    assert {hashlib.sha256(content).hexdigest()} == {point.settings["sha256"] for point in found}
    assert {CHUNK - 1} == {point.values["tokens"] for point in found}
    third = torch.tensor([ids[2 * CHUNK : 3 * CHUNK]])
    loss = engine.model(input_ids=third, labels=third).loss.item()
    assert found[2].values["nats"] == pytest.approx(loss * (CHUNK - 1), rel=1e-5)
    assert all(point.duration_s > 0 and point.stamped_by == "host" for point in found)
    assert len({point.window_id for point in found}) == CHUNKS


def test_a_trained_model_foresees_its_text_and_fewer_bits_foresee_it_worse(folder: Path) -> None:
    full, eight, four = (per_token(points(opened(folder, dtype))) for dtype in ("float32", "int8", "int4"))
    assert full < math.log(256) - 1
    assert abs(eight - full) < 0.01
    assert four > full + 0.002
    assert four - full > 3 * abs(eight - full)


def test_a_repetition_gives_the_same_nats_and_leaves_the_cell_as_it_was(folder: Path) -> None:
    engine = opened(folder)
    engine.rewind(0)
    engine.prefill()
    list(engine.decode(3))
    before = engine.output_tokens()
    assert [point.values for point in points(engine)] == [point.values for point in points(engine)]
    engine.rewind(0)
    engine.prefill()
    list(engine.decode(3))
    assert before == engine.output_tokens()


def test_numbers_that_overflow_fail_the_repetition(folder: Path) -> None:
    """A NaN was written as `null`, and the record of the whole run could not be read any more."""
    engine = opened(folder)
    with torch.no_grad():
        engine.model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(TrialError, match="chunk 0 of quality: nan nats"):
        points(engine)


def test_a_compiled_engine_reads_the_same(folder: Path) -> None:
    assert per_token(points(opened(folder, mode="compiled"))) == pytest.approx(per_token(points(opened(folder))), 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nats": 1}, "nll does not know nats"),
        ({"tokens": -1}, "tokens: -1 is no whole number of 0 or more"),
        ({"chunk": True}, "chunk: True is no whole number"),
        ({"text": "novel"}, "there is no 'novel'"),
        ({"tokens": 10}, "tokens: 10 are fewer than one chunk of 64"),
    ],
)
def test_options_that_make_no_sense_are_refused(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(PlugError, match=message):
        points(opened(folder), **options)


def test_weights_without_a_tokenizer_and_engines_without_a_model_are_refused() -> None:
    with pytest.raises(PlugError, match="needs a tokenizer"):
        points(opened(None))
    fake = open_fake(engine_request(step_s=0.01))
    with pytest.raises(PlugError, match="nll needs"):
        points(fake)


def test_all_tokens_are_read_where_none_are_named(folder: Path) -> None:
    engine = opened(folder)
    assert engine.tokenizer is not None
    content = (importlib.resources.files("tokbench.data") / "prompts" / "corpus.txt").read_text(encoding="utf-8")
    assert len(engine.tokenizer.encode(content)) // 512 == len(points(engine, tokens=0, chunk=512, text="corpus"))


@pytest.mark.parametrize("name", FROZEN)
def test_what_is_frozen_stays_as_it_was(name: str) -> None:
    content = (importlib.resources.files("tokbench.data") / "prompts" / name).read_bytes()
    assert FROZEN[name] == hashlib.sha256(content).hexdigest()
