"""The loop of rounds on tiny random models on the CPU: exact counts, the plain loop's tokens, clear refusals."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import DataError, PlugError, TrialError  # noqa: E402
from tokbench.measure.engines import CellWork, DraftModel, Round, Step  # noqa: E402
from tokbench.measure.engines.transformers.drafting import METHODS, loop, rounds, rules  # noqa: E402
from tokbench.measure.engines.transformers.drafting.drafter import Room  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.record.catalog import find_model  # noqa: E402
from tokbench.record.spec import ModelSpec, SpeculationSpec  # noqa: E402

GAMMA = 3
PROMPT, OUTPUT = 12, 24
SHAPES = ("tiny-llama", "tiny-gpt-oss", "tiny-deepseek", "tiny-qwen3-moe")


class Scripted:
    """Drafts the plain loop's own tokens, right for as long as a script says, and wrong from there."""

    is_point_mass = False
    uses_hidden = False
    notes = ("draft: scripted",)

    def __init__(self, room: Room, plain: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> None:
        self._rows, self._right, self._round = room.rows, right, 0
        self._prompt = room.work.prompt_tokens
        self._plain = [[*row, *([0] * (room.gamma + 1))] for row in plain]

    def prefill(self, ids: torch.Tensor, hidden: torch.Tensor | None) -> None:
        self._round = 0

    def compile(self, restart: Callable[[], None]) -> None: ...

    def draft(self) -> None:
        gamma = self._rows.drafts.shape[1]
        for row, length in enumerate(self._rows.lengths[:, 0].tolist()):
            made = length - self._prompt + 1
            right = self._right[self._round % len(self._right)][row]
            for place in range(gamma):
                token = self._plain[row][made + place]
                self._rows.drafts[row, place] = token if place < right else (token + 1) % 512
        self._round += 1

    def rewind(self, position: int, now: int) -> None:
        self._round = 0

    def cache_bytes(self) -> int:
        return 0

    def close(self) -> None: ...


def spec(method: str, **given: object) -> SpeculationSpec:
    """How tokens are drafted, γ 3 unless said otherwise."""
    return SpeculationSpec.model_validate({"method": method, "gamma": GAMMA, **given})


def draft_of(shape: str) -> DraftModel:
    """A random model that drafts; the same weights as the target where the shape and the type are the same."""
    row = find_model(shape)
    model = ModelSpec(source=f"shape:{row.name}", weights="random", dtype="float32")
    return DraftModel(model, row.name, json.dumps(row.config), None)


def drafting(method: str, shape: str = "tiny-llama", rows: int = 2, **given: object) -> CellWork:
    """Work with a method and what it needs."""
    options = {"early_exit": {"layers": 1}, "self_quantised": {"dtype": "int8"}, "replay": {"alpha": 0.6}}
    needs_draft = method in ("draft_model", "replay")
    wanted = spec(method, **{"options": options.get(method, {}), **given})
    plain = work(rows=rows, prompt_tokens=PROMPT, output_tokens=OUTPUT)
    return dataclasses.replace(plain, speculation=wanted, draft=draft_of(shape) if needs_draft else None)


def rounds_of(engine: TransformersEngine, steps: int) -> list[Round]:
    """One repetition's rounds."""
    engine.rewind(0)
    engine.prefill()
    return [step.round for step in engine.decode(steps) if step.round is not None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[Sequence[int]]], TransformersEngine]:
    """An engine whose drafts are right as often as a script says, round by round and row by row."""

    def open_scripted(right: Sequence[Sequence[int]]) -> TransformersEngine:
        engine = TransformersEngine(request("tiny-llama", "eager"))
        plain_work = work(rows=len(right[0]), prompt_tokens=PROMPT, output_tokens=OUTPUT)
        engine.prepare(plain_work)
        plain = run(engine, OUTPUT - 1)
        monkeypatch.setattr(loop, "find_opener", lambda method: lambda room: Scripted(room, plain, right))
        engine.prepare(dataclasses.replace(plain_work, speculation=spec("draft_model")))
        return engine

    return open_scripted


def test_rows_that_accept_none_and_all_in_one_round_advance_apart(
    script: Callable[[Sequence[Sequence[int]]], TransformersEngine],
) -> None:
    engine = script([(0, 3, 1)])
    found = rounds_of(engine, OUTPUT - 1)
    assert ((3, 3, 3), (0, 3, 1), (1, 4, 2), (12, 12, 12)) == found[0][:4]
    assert ((3, 3, 3), (0, 3, 1), (1, 4, 2), (13, 16, 14)) == found[1][:4]
    assert ((3, 3, 3), (0, 3, 1), (1, 3, 2), (17, 32, 22)) == found[5][:4]  # the second row is cut at its end
    assert ((3, 0, 3), (0, 0, 1), (1, 0, 2), (18, 0, 24)) == found[6][:4]
    assert ((3, 0, 3), (0, 0, 1), (1, 0, 1), (23, 0, 34)) == found[11][:4]
    assert ((3, 0, 0), (0, 0, 0), (1, 0, 0), (34, 0, 0)) == found[22][:4]
    assert 23 == len(found)


def test_tokens_of_rows_that_advance_apart_are_the_plain_ones(
    script: Callable[[Sequence[Sequence[int]]], TransformersEngine],
) -> None:
    engine = script([(0, 3, 1), (3, 0, 2), (2, 1, 3)])
    found = rounds_of(engine, OUTPUT - 1)
    drafted = engine.output_tokens()
    assert [OUTPUT - 1] * 3 == [sum(made.emitted[row] for made in found) for row in range(3)]
    engine.prepare(work(rows=3, prompt_tokens=PROMPT, output_tokens=OUTPUT))
    assert run(engine, OUTPUT - 1) == drafted


def test_emitted_is_one_more_than_accepted_but_for_a_row_that_ends(
    script: Callable[[Sequence[Sequence[int]]], TransformersEngine],
) -> None:
    found = rounds_of(script([(2, 3), (0, 1)]), OUTPUT - 1)
    for row in range(2):
        own = [made for made in found if made.emitted[row]]
        assert all(made.emitted[row] == made.accepted[row] + 1 for made in own[:-1])
        assert own[-1].emitted[row] <= own[-1].accepted[row] + 1
        assert [GAMMA] * len(own) == [made.drafted[row] for made in own]


def test_a_step_has_a_stamp_a_round_and_its_parts_fill_it(
    script: Callable[[Sequence[Sequence[int]]], TransformersEngine],
) -> None:
    engine = script([(1, 2)])
    engine.rewind(0)
    engine.prefill()
    begun = engine.sync()
    steps = list(engine.decode(OUTPUT - 1))
    ended = engine.sync()
    stamps = [step.at_ns for step in steps]
    assert stamps == sorted(stamps) and begun < stamps[0] and stamps[-1] <= ended
    for before, step in itertools.pairwise(steps):
        assert step.round is not None
        parts = step.round.draft_s + step.round.verify_s + step.round.other_s
        assert parts == pytest.approx((step.at_ns - before.at_ns) * 1e-9, abs=1e-8)
        assert step.round.draft_s > 0 and step.round.verify_s > 0
    assert [min(step.round.emitted) for step in steps if step.round] == [step.tokens_per_row for step in steps]


def test_rewinding_goes_on_identically_and_a_warm_up_may_stop_anywhere(
    script: Callable[[Sequence[Sequence[int]]], TransformersEngine],
) -> None:
    engine = script([(0, 3)])
    rounds_of(engine, OUTPUT - 1)
    whole = engine.output_tokens()
    engine.rewind(PROMPT)
    assert tuple(row[:1] for row in whole) == engine.output_tokens()
    list(engine.decode(4))
    assert tuple(row[:5] for row in whole) == engine.output_tokens()
    list(engine.decode(OUTPUT - 5))
    assert whole == engine.output_tokens()
    engine.rewind(PROMPT + 6)
    list(engine.decode(OUTPUT - 7))
    assert whole == engine.output_tokens()
    with pytest.raises(TrialError, match="cannot rewind to 5"):
        engine.rewind(5)
    with pytest.raises(TrialError, match="0 are left"):
        engine.decode(1)


def test_a_drafter_that_drafts_fewer_than_asked_is_found_out() -> None:
    with pytest.raises(TrialError, match="round 1 drafted 2 tokens for row 0, not 3"):
        rounds.check_gamma([[(3, 0, 1, 12)], [(2, 0, 1, 13)]], GAMMA, "draft_model")
    rounds.check_gamma([[(3, 0, 1, 12)], [(0, 0, 0, 0)]], GAMMA, "draft_model")
    rounds.check_gamma([[(1, 0, 1, 12)]], GAMMA, "prompt_lookup")
    with pytest.raises(TrialError, match="drafted 4"):
        rounds.check_gamma([[(4, 0, 1, 12)]], GAMMA, "prompt_lookup")


LOSSLESS = ("prompt_lookup", "early_exit", "draft_model", "self_quantised")


@pytest.mark.parametrize(
    ("shape", "mode"),
    [*((shape, "eager") for shape in SHAPES), ("tiny-llama", "compiled"), ("tiny-gpt-oss", "compiled")],
)
def test_every_method_makes_the_tokens_of_the_plain_loop(shape: str, mode: str) -> None:
    engine = TransformersEngine(request(shape, mode))
    engine.prepare(work(rows=2, prompt_tokens=PROMPT, output_tokens=OUTPUT))
    plain = run(engine, OUTPUT - 1)
    is_dense = shape == "tiny-llama"
    for method in LOSSLESS if is_dense and mode == "eager" else LOSSLESS[:3]:
        engine.prepare(drafting(method, shape))
        found = rounds_of(engine, OUTPUT - 1)
        assert plain == engine.output_tokens(), method
        assert [OUTPUT - 1] * 2 == [sum(made.emitted[row] for made in found) for row in range(2)]
        if method == "draft_model":  # the target's own weights
            assert len(found) <= 9
        checked = engine.check_identity(OUTPUT)
        assert checked is not None and checked.first_divergence is None
    engine.close()


def test_a_prompt_longer_than_the_window_makes_the_same_tokens() -> None:
    engine = TransformersEngine(request("tiny-gpt-oss", "eager"))
    longer = work(prompt_tokens=40, output_tokens=40)
    engine.prepare(longer)
    plain = run(engine, 39)
    for method in ("draft_model", "early_exit"):
        asked = drafting(method, "tiny-gpt-oss")
        engine.prepare(dataclasses.replace(longer, speculation=asked.speculation, draft=asked.draft))
        assert plain == run(engine, 39), method
        with pytest.raises(TrialError, match="sliding window"):
            engine.rewind(41)


def test_generated_code_and_its_replay_make_the_same_tokens() -> None:
    engine = TransformersEngine(request("tiny-llama", "compiled", options={}, overrides={"num_hidden_layers": 1}))
    plain_work = work(rows=2, prompt_tokens=PROMPT, output_tokens=8)
    engine.prepare(plain_work)
    plain = run(engine, 7)
    asked = spec("prompt_lookup", gamma=2)
    prepared = engine.prepare(dataclasses.replace(plain_work, speculation=asked))
    graphs = engine.graphs_compiled
    assert plain == run(engine, 7)
    assert graphs == engine.graphs_compiled
    assert prepared.kernels_counted_by is not None and "round" in prepared.kernels_counted_by
    assert [] == [note for note in engine.facts.notes if "not replayed" in note], "all of a round is one call a pass"


@pytest.mark.parametrize("method", ["prompt_lookup", "draft_model"])
def test_nothing_is_compiled_inside_a_window_and_the_same_cell_repeats(method: str) -> None:
    engine = TransformersEngine(request("tiny-llama", "compiled"))
    engine.prepare(drafting(method))
    before = engine.graphs_compiled
    first = run(engine, OUTPUT - 1)
    assert first == run(engine, OUTPUT - 1)
    assert before == engine.graphs_compiled
    assert [True] == [found.tokens_equal for found in engine.check_repeat(8)]


def test_a_model_kept_for_the_next_cell_is_let_go_of_with_the_method() -> None:
    engine = TransformersEngine(request("tiny-llama", "eager"))
    engine.prepare(drafting("draft_model"))
    kept = engine._keeper._kept
    engine.prepare(drafting("draft_model", rows=1))
    assert kept is engine._keeper._kept
    engine.prepare(work())
    assert engine._keeper._kept is None


def test_prompt_lookup_copies_what_followed_the_longest_n_gram() -> None:
    from tokbench.measure.engines.transformers.drafting.drafter import Rows
    from tokbench.measure.engines.transformers.drafting.prompt_lookup import look_up

    held = [[5, 6, 7, 8, 9, 6, 7], [1, 2, 1, 3, 4, 1, 1], [1, 2, 3, 4, 5, 6, 7]]
    tokens = torch.tensor([[*row, 0, 0, 0, 0] for row in held])
    number = torch.zeros((3, 1), dtype=torch.long)
    rows = Rows(tokens, number + 6, number, torch.zeros((3, 3), dtype=torch.long), number + 3, None, None)
    look_up(rows, 3, 1)
    assert [8, 9, 6] == rows.drafts[0].tolist()  # behind the earlier `6 7`
    assert [3, 4, 1] == rows.drafts[1].tolist()  # no two tokens stand twice; the latest `1` with three tokens behind it
    assert [3, 3, 0] == rows.drafted[:, 0].tolist()
    look_up(rows, 3, 2)
    assert [3, 0, 0] == rows.drafted[:, 0].tolist()
    repeated = rows._replace(tokens=torch.tensor([[9, 9, 9, 0, 0, 0, 0]] * 3), lengths=number + 2)
    look_up(repeated, 1, 1)
    assert [2, 2, 2] == repeated.drafted[:, 0].tolist()  # behind the earliest place: nowhere stand three tokens
    assert [9, 9] == repeated.drafts[0].tolist()[:2]


def test_a_replay_accepts_what_its_trace_says(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"event": "trial_started"}\n{"accepted": [3, 0, 1, 2]}\n', encoding="utf-8")
    engine = TransformersEngine(request("tiny-llama", "eager"))
    engine.prepare(drafting("replay", options={"trace": str(path)}))
    found = rounds_of(engine, OUTPUT - 1)
    assert [(3, 1), (0, 2), (1, 3), (2, 0)] == [made.accepted for made in found[:4]]
    assert "REPLAY" in engine.facts.notes[0]
    assert engine.check_identity(8) is None
    engine.close()


def told_by(repetition: int, gamma: int, rounds: int) -> list[tuple[int, ...]]:
    """What the drawn trace of a repetition accepts, round by round."""
    trace = rules.read_trace(spec("replay", gamma=gamma, options={"alpha": 0.6}), rows=2, seed=0)
    begun = repetition * OUTPUT
    return [tuple(line) for line in trace[begun : begun + rounds].tolist()]


def test_each_repetition_follows_a_part_of_the_trace_of_its_own() -> None:
    engine = TransformersEngine(request("tiny-llama", "eager"))
    engine.prepare(drafting("replay"))
    for repetition in (0, 3, 1):
        engine.draw_from(repetition)
        assert told_by(repetition, GAMMA, 4) == [made.accepted for made in rounds_of(engine, OUTPUT - 1)[:4]]
    assert told_by(0, GAMMA, 4) != told_by(3, GAMMA, 4)


def test_generated_code_of_a_replay_is_tried_out_at_one_place_of_its_trace() -> None:
    """The trace went on between two trials of the same pass, so that a compiled replay was refused on a CPU."""
    engine = TransformersEngine(request("tiny-llama", "compiled", options={}, overrides={"num_hidden_layers": 1}))
    prepared = engine.prepare(drafting("replay", gamma=1))
    engine.draw_from(0)
    assert told_by(0, 1, 8) == [made.accepted for made in rounds_of(engine, OUTPUT - 1)[:8]]
    assert prepared.kernels_counted_by is not None
    engine.close()


def test_a_drawn_trace_accepts_with_its_alpha() -> None:
    trace = rules.read_trace(spec("replay", gamma=4, options={"alpha": 0.8}), rows=4, seed=1)
    stopped = int((trace < 4).sum())
    alpha = int(trace.sum()) / (int(trace.sum()) + stopped)
    assert alpha == pytest.approx(0.8, abs=0.01)
    assert not torch.equal(trace[:, 0], trace[:, 1])


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("prompt_lookup", {"options": {"ngram_maxx": 3}}, "did you mean `ngram_max`"),
        ("prompt_lookup", {"options": {"ngram_max": 1, "ngram_min": 2}}, "longer than ngram_max"),
        ("prompt_lookup", {"options": {"ngram_max": 0}}, "not a whole number above 0"),
        ("early_exit", {"options": {}}, "needs it"),
        ("early_exit", {"options": {"layers": 2}}, "2 of 2 layers would be the target itself"),
        ("self_quantised", {"options": {"dtype": "int2"}}, "none of int8, int4, fp8"),
        ("replay", {"options": {"alpha": 1.0}}, "not between 0 and 1"),
        ("replay", {"options": {}}, "needs `alpha` or `trace`"),
        ("replay", {"accept": "top3"}, "accepts what its trace says"),
        ("draft_model", {"options": {"layers": 2}}, "no option 'layers'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(method: str, given: dict[str, object], said: str) -> None:
    engine = TransformersEngine(request("tiny-llama", "eager"))
    with pytest.raises(PlugError) as refused:
        engine.prepare(drafting(method, **given))
    assert said in f"{refused.value} {refused.value.fix}"
    assert engine._loop is None


def test_a_draft_of_another_vocabulary_is_refused() -> None:
    engine = TransformersEngine(request("tiny-llama", "eager"))
    asked = drafting("draft_model")
    assert asked.draft is not None
    config = json.dumps({**find_model("tiny-llama").config, "vocab_size": 500})
    with pytest.raises(PlugError, match="has 500 token ids, tiny-llama has 512"):
        engine.prepare(dataclasses.replace(asked, draft=dataclasses.replace(asked.draft, config_json=config)))
    with pytest.raises(PlugError, match="needs the model that drafts"):
        engine.prepare(dataclasses.replace(asked, draft=None))


def test_a_trace_that_cannot_be_read_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"accepted": [1]}\n{"accepted": [4]}\n', encoding="utf-8")
    asked = spec("replay", options={"trace": str(path)})
    with pytest.raises(DataError, match=r"row 2|from 0 to gamma \(3\)"):
        rules.read_trace(asked, 1, 1)
    path.write_text('{"event": "cell_prepared"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="no line has `accepted`"):
        rules.read_trace(asked, 1, 1)
    with pytest.raises(DataError, match="cannot be read"):
        rules.read_trace(spec("replay", options={"trace": str(tmp_path / "none")}), 1, 1)


def test_the_socket_lists_its_methods_and_each_has_a_module() -> None:
    folder = Path(loop.__file__).parent
    assert all((folder / f"{method}.py").is_file() for method in METHODS)


def test_a_step_without_a_round_is_a_plain_one() -> None:
    engine = TransformersEngine(request("tiny-llama", "eager"))
    engine.prepare(work())
    engine.prefill()
    assert all(isinstance(step, Step) and step.round is None for step in engine.decode(4))
