"""The MTP drafter on a tiny random target: its drafts are those of the head without any cache, and tokens stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError  # noqa: E402
from tokbench.measure.engines.transformers.drafting import mtp_head  # noqa: E402
from tokbench.measure.engines.transformers.drafting.mtp_head import MtpHead, parts_of, print_of  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.training.harvest import Asked, Harvest, harvest  # noqa: E402
from tokbench.measure.training.mtp import Named, Recipe, train_head  # noqa: E402
from tokbench.record.spec import SpeculationSpec  # noqa: E402

WORK = work(rows=3, prompt_tokens=12, output_tokens=24)


def drafting(folder: Path | str, gamma: int = 2, **changed: Any) -> Any:
    """The same work with the head of a folder."""
    spec = SpeculationSpec(method="mtp", gamma=gamma, options={"head": str(folder)})
    return dataclasses.replace(WORK, speculation=spec, **changed)


def own_text(model: Any, rows: int = 24) -> Harvest:
    prompts = torch.randint(512, (rows, 8), generator=torch.Generator().manual_seed(1))
    return harvest(model, prompts, 8, Asked(rows, 8, 16, seed=1), None, lambda _: None)


@pytest.fixture(scope="module")
def engine() -> Iterator[TransformersEngine]:
    opened = TransformersEngine(request())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def folder(engine: TransformersEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that was trained for the tiny target, long enough that some of its drafts are right."""
    made: Path = tmp_path_factory.mktemp("head")
    recipe = Recipe(steps=60, rows_per_step=8, scored_places=64, depths=1, learning_rate=3e-3)
    with torch.enable_grad():
        named = Named("tiny-llama", "shape:tiny-llama")
        trained = train_head(engine.model, own_text(engine.model), recipe, named, None, print)
    mtp_head.save_head(made, trained.head, trained.facts)
    return made


def target_of(engine: TransformersEngine) -> mtp_head.Target:
    return mtp_head.Target(engine.model, print_of(engine.model), "tiny-llama", "shape:tiny-llama")


def rounds_of(engine: TransformersEngine) -> list[Any]:
    engine.rewind(0)
    engine.prefill()
    return [step.round for step in engine.decode(WORK.output_tokens - 1)]


@pytest.fixture(scope="module")
def plain(engine: TransformersEngine) -> tuple[tuple[int, ...], ...]:
    engine.prepare(WORK)
    return run(engine, WORK.output_tokens - 1)


@pytest.mark.parametrize("gamma", [1, 3])
def test_tokens_are_those_of_the_plain_loop(
    engine: TransformersEngine, folder: Path, plain: tuple[tuple[int, ...], ...], gamma: int
) -> None:
    engine.prepare(drafting(folder, gamma))
    assert plain == run(engine, WORK.output_tokens - 1)
    assert plain == run(engine, WORK.output_tokens - 1)


def test_rounds_draft_gamma_and_add_up(engine: TransformersEngine, folder: Path) -> None:
    engine.prepare(drafting(folder))
    rounds = rounds_of(engine)
    for row in range(WORK.rows):
        own = [each for each in rounds if each.emitted[row]]
        assert {2} == {each.drafted[row] for each in own}
        assert WORK.output_tokens - 1 == sum(each.emitted[row] for each in own)
    accepted = [each.accepted[row] for each in rounds for row in range(WORK.rows) if each.emitted[row]]
    assert {0} < set(accepted)  # rows that accept nothing and rows that accept something


def reference_drafts(engine: TransformersEngine, head: MtpHead, tokens: list[int], gamma: int) -> list[int]:
    """What the head drafts behind a whole row of tokens, the newest one last; everything is worked out anew."""
    parts = parts_of(engine.model)
    ids = torch.tensor([tokens])
    states = engine.model.model(ids[:, :-1]).last_hidden_state
    following, drafts = ids[:, 1:], list[int]()
    for _ in range(gamma):
        places = torch.arange(states.shape[1])[None]
        rotation = parts.rotary(states, places)
        mask = torch.ones(states.shape[1], states.shape[1], dtype=torch.bool).tril()[None, None]
        state = head(states, parts.embedding(following), rotation, mask, None)[:, -1:]
        drafts.append(int(parts.head(state).argmax(-1)))
        states = torch.cat((states, state), 1)
        following = torch.cat((following, torch.tensor([drafts[-1:]])), 1)
    return drafts


@torch.inference_mode()
def test_every_draft_is_what_the_head_says_without_a_cache(engine: TransformersEngine, folder: Path) -> None:
    engine.prepare(drafting(folder, 3))
    loop: Any = engine._loop
    head, _ = mtp_head.load_head(folder, target_of(engine))
    seen: list[tuple[list[list[int]], list[int], list[list[int]]]] = []
    draft = loop._drafter.draft

    def watched() -> None:
        draft()
        rows = loop._rows
        seen.append((rows.tokens.tolist(), rows.lengths[:, 0].tolist(), rows.drafts.tolist()))

    loop._drafter.draft = watched
    rounds_of(engine)
    assert len(seen) > 4
    for tokens, lengths, drafts in seen:
        for row in range(WORK.rows):
            assert drafts[row] == reference_drafts(engine, head, tokens[row][: lengths[row] + 1], 3)


def test_the_mode_compiled_drafts_the_same(engine: TransformersEngine, folder: Path) -> None:
    engine.prepare(drafting(folder))
    eager = rounds_of(engine)
    other = TransformersEngine(request(mode="compiled"))
    try:
        other.prepare(drafting(folder))
        compiled = rounds_of(other)
    finally:
        other.close()
    counts = [(each.drafted, each.accepted, each.emitted, each.position) for each in eager]
    assert counts == [(each.drafted, each.accepted, each.emitted, each.position) for each in compiled]


def test_a_rewind_to_the_prompt_drafts_the_same_again(engine: TransformersEngine, folder: Path) -> None:
    engine.prepare(drafting(folder))
    first = rounds_of(engine)
    engine.rewind(WORK.prompt_tokens)
    again = [step.round for step in engine.decode(WORK.output_tokens - 1)]
    assert [each.accepted for each in first if each] == [each.accepted for each in again if each]


@torch.inference_mode()
def test_a_drawn_draft_comes_with_its_distribution(engine: TransformersEngine, folder: Path) -> None:
    engine.prepare(drafting(folder, 2, temperature=0.8))
    rounds_of(engine)
    rows = engine._loop._rows  # type: ignore[union-attr]
    shares = rows.probabilities
    assert (3, 2, 512) == tuple(shares.shape)
    assert torch.allclose(torch.ones(3, 2), shares.sum(-1), atol=1e-4)
    assert bool((shares.gather(2, rows.drafts[:, :, None]) > 0).all())


def test_the_record_says_that_it_was_trained_here(engine: TransformersEngine, folder: Path) -> None:
    engine.prepare(drafting(folder))
    said = [note for note in engine.facts.notes if "trained here" in note]
    assert 1 == len(said)
    assert "60 steps" in said[0]


def refused(engine: TransformersEngine, wanted: Any) -> PlugError:
    with pytest.raises(PlugError) as found:
        engine.prepare(wanted)
    return found.value


def test_a_missing_head_names_the_command_that_trains_it(engine: TransformersEngine, tmp_path: Path) -> None:
    error = refused(engine, drafting(tmp_path / "none"))
    assert "no MTP head for tiny-llama" in error.message
    assert "tokbench train mtp --model shape:tiny-llama" == error.fix


def test_a_head_of_another_target_names_both(engine: TransformersEngine, folder: Path, tmp_path: Path) -> None:
    facts = (folder / mtp_head.FACTS_FILE).read_text(encoding="utf-8")
    other = facts.replace(print_of(engine.model), "0" * 64).replace('"tiny-llama"', '"another-model"')
    (tmp_path / mtp_head.FACTS_FILE).write_text(other, encoding="utf-8")
    (tmp_path / mtp_head.WEIGHTS_FILE).write_bytes((folder / mtp_head.WEIGHTS_FILE).read_bytes())
    error = refused(engine, drafting(tmp_path))
    assert "was trained for another-model, not for tiny-llama" in error.message


def test_broken_facts_are_one_clear_error(engine: TransformersEngine, folder: Path, tmp_path: Path) -> None:
    (tmp_path / mtp_head.FACTS_FILE).write_text("{}", encoding="utf-8")
    (tmp_path / mtp_head.WEIGHTS_FILE).write_bytes((folder / mtp_head.WEIGHTS_FILE).read_bytes())
    assert "cannot be read" in refused(engine, drafting(tmp_path)).message


@pytest.mark.parametrize(("options", "said"), [({"haed": "x"}, "haed"), ({"head": 3}, "is not a folder")])
def test_a_wrong_option_is_refused(engine: TransformersEngine, options: dict[str, Any], said: str) -> None:
    spec = SpeculationSpec(method="mtp", gamma=1, options=options)
    assert said in refused(engine, dataclasses.replace(WORK, speculation=spec)).message


def test_another_seed_is_another_target(engine: TransformersEngine) -> None:
    other = TransformersEngine(dataclasses.replace(request(), seed=4))
    try:
        assert print_of(engine.model) != print_of(other.model)
    finally:
        other.close()


def test_a_target_that_differs_in_one_weight_anywhere_has_another_print(engine: TransformersEngine) -> None:
    whole = print_of(engine.model)
    for name, weight in engine.model.named_parameters():
        number = weight.data.view(-1)[-1:]
        before = number.clone()
        number.copy_(before.to(torch.bfloat16).nextafter(torch.tensor(9.0, dtype=torch.bfloat16)))
        assert whole != print_of(engine.model), name
        number.copy_(before)
    assert whole == print_of(engine.model)


def test_a_print_is_one_in_float32_and_bfloat16_and_in_however_many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(37, 11, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    whole = mtp_head.sum_of(weights)
    assert whole == mtp_head.sum_of(weights.float())
    assert whole == mtp_head.sum_of(weights.t().contiguous().t())
    assert whole != mtp_head.sum_of(weights.flip(0))
    monkeypatch.setattr(mtp_head, "PRINTED_AT_ONCE", 10)
    assert whole == mtp_head.sum_of(weights)


def test_a_sum_is_that_of_its_formula() -> None:
    numbers, odd = [3, -2, 5], mtp_head.ODD
    found = sum(number * (place * odd | 1) for place, number in enumerate(numbers)) % 2**64
    assert found == mtp_head.sum_of(torch.tensor(numbers, dtype=torch.int8)) % 2**64


def test_a_head_of_a_target_that_differs_in_one_layer_is_refused(engine: TransformersEngine, folder: Path) -> None:
    weight = engine.model.model.layers[0].mlp.up_proj.weight
    before = weight.data[0, 0].clone()
    weight.data[0, 0] = 1.0
    try:
        assert "was trained for tiny-llama" in refused(engine, drafting(folder)).message
    finally:
        weight.data[0, 0] = before
