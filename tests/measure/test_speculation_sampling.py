"""Drawn tokens: rejection sampling keeps the target's distribution, the rule that is lossy on purpose does not."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run  # noqa: E402
from tokbench.measure.engines import CellWork  # noqa: E402
from tokbench.measure.engines.transformers.drafting.accepting import (  # noqa: E402
    Draws,
    Rule,
    take_by_chance,
    take_likely,
)
from tokbench.measure.engines.transformers.drafting.drafter import Rows  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.engines.transformers.sampling import Noise, distribution, draw  # noqa: E402
from tokbench.record.spec import SpeculationSpec  # noqa: E402

VOCABULARY = 8
DRAWS = 20_000
LIMIT = 24.3
"""Chi-square of 7 degrees of freedom that one honest sample in a thousand exceeds."""


def chi_square(counts: torch.Tensor, shares: torch.Tensor) -> float:
    """How far counts are from what shares let expect."""
    expected = shares.double() * counts.sum()
    assert float(expected.min()) >= 5
    return float(((counts - expected) ** 2 / expected).sum())


def three_tokens(rule: Rule, *, is_point_mass: bool) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """The tokens that one round of two drafts gives each of many rows, place by place, and the target's shares there.

    The third stands behind two accepted drafts, and is the target's own.
    """
    logits = torch.randn((3, VOCABULARY), generator=torch.Generator().manual_seed(2)).expand(DRAWS, -1, -1)
    noise = Noise(torch.device("cpu"), 7, 0.8)
    shares = torch.softmax(torch.randn((2, VOCABULARY), generator=torch.Generator().manual_seed(4)), -1)
    exponential = noise.exponential(DRAWS, 2, VOCABULARY)
    draws = Draws(noise.sampling(DRAWS, VOCABULARY), noise.uniform(DRAWS, 2), None, None)
    noise.begin()
    drafts = draw(shares.expand(DRAWS, -1, -1), exponential)[:, :, 0]
    if is_point_mass:
        drafts = torch.tensor([[1, 6]]).expand(DRAWS, -1).contiguous()
    number = torch.zeros((DRAWS, 1), dtype=torch.long)
    held = None if is_point_mass else shares.expand(DRAWS, -1, -1)
    found = rule(logits, Rows(number, number, number, drafts, number + 2, held, None), draws)
    tokens = torch.cat([drafts, found.following], 1)
    first = torch.where(found.count > 0, tokens[:, :1], found.following)[:, 0]
    second = torch.where(found.count > 1, tokens[:, 1:2], found.following)[found.count[:, 0] > 0][:, 0]
    third = found.following[found.count[:, 0] == 2][:, 0]
    shares = distribution(logits[0], draws.sampling.temperature if draws.sampling else torch.ones(1))
    return (first, second, third), shares


@pytest.mark.parametrize("is_point_mass", [False, True])
def test_rejection_sampling_keeps_the_distribution(is_point_mass: bool) -> None:
    tokens, shares = three_tokens(take_by_chance, is_point_mass=is_point_mass)
    for place, drawn in enumerate(tokens):
        assert chi_square(drawn.bincount(minlength=VOCABULARY), shares[place]) < LIMIT


def test_the_rule_that_is_lossy_on_purpose_is_found_out() -> None:
    (first, _, _), shares = three_tokens(take_likely, is_point_mass=False)
    assert chi_square(first.bincount(minlength=VOCABULARY), shares[0]) > 10 * LIMIT


def test_a_place_where_nothing_was_drafted_is_drawn_from_the_target_itself() -> None:
    logits = torch.zeros((DRAWS, 2, VOCABULARY))
    noise = Noise(torch.device("cpu"), 3, 1.0)
    draws = Draws(noise.sampling(DRAWS, VOCABULARY), noise.uniform(DRAWS, 1), None, None)
    noise.begin()
    number = torch.zeros((DRAWS, 1), dtype=torch.long)
    found = take_by_chance(logits, Rows(number, number, number, number + 5, number, None, None), draws)
    assert 0 == int(found.count.sum())
    assert chi_square(found.following[:, 0].bincount(minlength=VOCABULARY), torch.full((VOCABULARY,), 1 / 8)) < LIMIT


def sampled_work(rows: int, seed: int = 1) -> CellWork:
    """The same prompt in every row, tokens drawn at a temperature that makes random weights pointed."""
    prompt = tuple((7 * place) % VOCABULARY for place in range(10))
    return CellWork((prompt,) * rows, 4, temperature=0.05, seed=seed)


def sampled_engine(mode: str = "eager") -> TransformersEngine:
    """A tiny model of eight token ids."""
    return TransformersEngine(request("tiny-llama", mode, overrides={"vocab_size": VOCABULARY}))


def seconds(engine: TransformersEngine, times: int) -> torch.Tensor:
    """How often each token came second, over so many repetitions."""
    found = Counter(row[1] for _ in range(times) for row in run(engine, 3))
    return torch.tensor([found[token] for token in range(VOCABULARY)])


def exact_seconds(engine: TransformersEngine, work: CellWork) -> torch.Tensor:
    """The chance of each token to come second, worked out from the model alone."""
    model = engine.model
    temperature = torch.tensor([work.temperature])
    prompt = torch.tensor(work.prompts[:1])
    first = distribution(model(prompt).logits[0, -1], temperature)
    both = torch.cat([prompt.expand(VOCABULARY, -1), torch.arange(VOCABULARY)[:, None]], 1)
    return first @ distribution(model(both).logits[:, -1], temperature)


def drafted_work(method: str, rows: int, accept: str = "lossless") -> CellWork:
    options = {"layers": 1} if method == "early_exit" else {}
    given = {"method": method, "gamma": 2, "accept": accept, "options": options}
    return dataclasses.replace(sampled_work(rows), speculation=SpeculationSpec.model_validate(given))


@pytest.mark.parametrize("method", ["none", "early_exit", "prompt_lookup"])
def test_drawn_tokens_come_as_often_as_the_model_says(method: str) -> None:
    engine = sampled_engine()
    work = sampled_work(256) if method == "none" else drafted_work(method, 256)
    engine.prepare(work)
    shares = exact_seconds(engine, work)
    counts = seconds(engine, 16)
    common = shares * counts.sum() >= 5
    assert int(common.sum()) >= 3
    pooled = torch.cat([counts[common], counts[~common].sum()[None]])
    expected = torch.cat([shares[common], shares[~common].sum()[None]]).double() * counts.sum()
    held = expected > 0
    assert float(((pooled - expected) ** 2 / expected)[held].sum()) < LIMIT


def test_the_lossy_rule_draws_other_tokens_than_the_model() -> None:
    engine = sampled_engine()
    work = drafted_work("early_exit", 256, "top3")
    engine.prepare(work)
    shares = exact_seconds(engine, work).double()
    counts = seconds(engine, 16)
    distance = float((counts / counts.sum() - shares).abs().sum()) / 2
    assert distance > 0.05  # 4,096 honest draws of eight tokens lie within 0.03
    assert any("LOSSY" in note for note in engine.facts.notes)


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_drawn_tokens_follow_from_the_seed_and_differ_between_repetitions(mode: str) -> None:
    engine, other = sampled_engine(mode), sampled_engine("eager")
    engine.prepare(sampled_work(4))
    other.prepare(sampled_work(4))
    first, second = run(engine, 3), run(engine, 3)
    assert first != second
    assert (first, second) == (run(other, 3), run(other, 3))
    engine.prepare(sampled_work(4, seed=2))
    assert first != run(engine, 3)
    assert [True] == [found.tokens_equal for found in engine.check_repeat(3)]
    assert engine.check_identity(3) is None  # `generate` would take the likeliest


@pytest.mark.parametrize("method", ["none", "early_exit"])
def test_a_repetition_draws_the_same_whenever_the_cell_is_visited_and_no_two_alike(method: str) -> None:
    engine = sampled_engine()
    work = sampled_work(4) if method == "none" else drafted_work(method, 4)
    found = []
    for repetitions in ((0, 1), (2, 1)):  # two visits: the cell is prepared anew at each
        engine.prepare(work)
        for repetition in repetitions:
            engine.draw_from(repetition)
            found.append(run(engine, 3))
    first, second, third, again = found
    assert second == again
    assert 3 == len({first, second, third})


def test_a_low_temperature_takes_the_likeliest_token() -> None:
    engine = sampled_engine()
    engine.prepare(dataclasses.replace(sampled_work(2), temperature=0.0))
    likeliest = run(engine, 3)
    engine.prepare(dataclasses.replace(sampled_work(2), temperature=1e-6))
    assert likeliest == run(engine, 3)
