"""A training that was stopped goes on to the same end; what counting knows of a text, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

from tiny_engines import request  # noqa: E402
from tokbench.measure.engines.transformers.loading import load_model  # noqa: E402
from tokbench.measure.training import harvest, mtp, texts, toys  # noqa: E402
from tokbench.measure.training.baselines import count_baselines  # noqa: E402
from tokbench.measure.training.checkpoint import Checkpoint  # noqa: E402

ASKED = harvest.Asked(24, 8, 12, seed=1, rows_at_once=8)
NAMED = mtp.Named("tiny", "shape:tiny")
WORDS = [texts.Text(f"{n}.py", f"def add_{n}(name):\n    return name + {n}\n" * 20, n % 5 == 0) for n in range(10)]
TINY = toys.PairRecipe(280, toys.Size(1, 32), toys.Size(1, 32), steps=6, rows_per_step=2, tokens_per_row=16)

torch.set_num_threads(1)  # two would wait for each other where the machine has other work


class StoppedError(Exception):
    """Somebody pressed a key."""


class Ear:
    """Keeps what it hears, and stops everything at a word."""

    def __init__(self, word: str | None = None) -> None:
        self.word, self.heard = word, list[str]()

    def __call__(self, text: str) -> None:
        self.heard.append(text)
        if self.word is not None and self.word in text:
            raise StoppedError


@pytest.fixture(scope="module")
def target() -> Any:
    return load_model(request())


def written(target: Any, kept: Checkpoint | None, ear: Ear) -> harvest.Harvest:
    prompts = torch.randint(512, (24, 8), generator=torch.Generator().manual_seed(1))
    return harvest.harvest(target, prompts, 8, ASKED, kept, ear)


def test_a_harvest_goes_on_behind_the_rows_that_were_kept(target: Any, tmp_path: Path) -> None:
    whole, kept = written(target, None, Ear()), Checkpoint(tmp_path, "this", "text.pt")
    with pytest.raises(StoppedError):
        written(target, kept, Ear("16 of 24"))
    ear = Ear()
    again = written(target, kept, ear)
    assert "text of the target: 8 rows were made before" == ear.heard[0]
    for first, second in zip(whole[:3], again[:3], strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("steps_kept", [2, 4])
def test_a_head_goes_on_to_the_same_weights(
    target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_kept: int
) -> None:
    for name, value in (("KEPT_EVERY", steps_kept), ("SAID_EVERY", 1), ("EXAMINED_EVERY", 2)):
        monkeypatch.setattr(mtp, name, value)
    text, recipe = written(target, None, Ear()), mtp.Recipe(steps=6, scored_places=32)
    whole = mtp.train_head(target, text, recipe, NAMED, None, Ear())
    kept = Checkpoint(tmp_path, "this")
    with pytest.raises(StoppedError):
        mtp.train_head(target, text, recipe, NAMED, kept, Ear("step 5 of 6"))
    ear = Ear()
    again = mtp.train_head(target, text, recipe, NAMED, kept, ear)
    assert "training goes on from step 4" == ear.heard[0]
    for name, weight in whole.head.state_dict().items():
        assert torch.equal(weight, again.head.state_dict()[name]), name
    assert [2, 4, 6] == [step for step, _ in again.facts.course]
    assert whole.facts.course == again.facts.course
    assert not kept.path.exists()


def test_a_pair_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "KEPT_EVERY", 2)
    monkeypatch.setattr(toys, "SAID_EVERY", 1)
    corpus = texts.corpus(WORDS)
    whole = toys.train_pair(TINY, corpus, "cpu", tmp_path / "whole", Ear())
    with pytest.raises(StoppedError):
        toys.train_pair(TINY, corpus, "cpu", tmp_path / "parts", Ear("step 5 of 6"))
    ear = Ear()
    again = toys.train_pair(TINY, corpus, "cpu", tmp_path / "parts", ear)
    assert any("goes on from step 4" in said for said in ear.heard)
    for first, second in ((whole.target, again.target), (whole.draft, again.draft)):
        for name, weight in first.state_dict().items():
            assert torch.equal(weight, second.state_dict()[name]), name


def test_a_pair_goes_on_to_another_end_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys, "KEPT_EVERY", 2)
    monkeypatch.setattr(toys, "SAID_EVERY", 1)
    corpus = texts.corpus(WORDS)
    with pytest.raises(StoppedError):
        toys.train_pair(TINY._replace(steps=9), corpus, "cpu", tmp_path, Ear("step 3 of 9"))
    facts = toys.train_pair(TINY._replace(steps=4), corpus, "cpu", tmp_path, Ear()).facts
    assert (4, ((0, 9), (2, 4)), 4 * 2 * 16) == (facts.steps, facts.planned, facts.tokens)
    assert 4 == toys.train_pair(TINY._replace(steps=1), corpus, "cpu", tmp_path, Ear()).facts.steps


def test_what_belongs_to_another_training_is_not_gone_on_from(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path, "this")
    assert kept.read() is None
    kept.keep({"step": 3})
    assert 3 == (kept.read() or {})["step"]
    assert kept._replace(belongs_to="another").read() is None
    kept.path.write_bytes(b"torn")
    assert kept.read() is None
    assert [kept.path] == list(tmp_path.iterdir())


def test_baselines_by_hand() -> None:
    taught = torch.tensor([0, 1, 0, 1, 0, 2], dtype=torch.int32)
    rows = torch.tensor([[0, 1, 2, 0]])  # 0 -> 1 was seen twice, 1 -> 2 never, and nothing behind 2
    found = count_baselines(taught, rows, 3)
    alone = [4 / 9, 3 / 9, 2 / 9]  # one more each than 3, 2, 1
    assert pytest.approx(-(math.log(alone[1]) + math.log(alone[2]) + math.log(alone[0])) / 3) == found.unigram
    after_0 = (2 + 2 * alone[1]) / (3 + 2)  # three times followed, by two kinds
    after_1 = (0 + 1 * alone[2]) / (2 + 1)
    assert pytest.approx(-(math.log(after_0) + math.log(after_1) + math.log(alone[0])) / 3) == found.bigram


def test_the_text_is_told_from_another_by_its_hash() -> None:
    first = texts.corpus(WORDS)
    assert first.sha256 == texts.corpus(list(WORDS)).sha256
    assert first.sha256 != texts.corpus([*WORDS[:-1], WORDS[-1]._replace(content="x")]).sha256
    assert "manual of CPython" in first.label


def test_the_manual_is_prose_of_which_a_part_is_held_out() -> None:
    manual = texts.manual_texts()
    if not manual:
        pytest.skip("this interpreter comes without its manual")
    assert 0 < sum(text.is_held_out for text in manual) < len(manual) / 4
    assert all(len(text.content) <= texts.MAX_CHARACTERS for text in manual)
    assert manual == texts.manual_texts()
