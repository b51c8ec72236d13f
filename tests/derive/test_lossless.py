"""What is derived from the experiment `lossless`: counts by hand, a test whose p is known, and what a report says."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from pathlib import Path

import pytest
from scipy import stats

from builders import Script
from tokbench.derive.evaluate import Missing, evaluate
from tokbench.derive.lossless import GTest, Matches, combined_p, detectable_shift, g_test, g_tests, mismatch_bound
from tokbench.derive.metrics import catalog
from tokbench.derive.report.document import Section, Table
from tokbench.derive.report.lossless_section import lossless_sections
from tokbench.derive.report.write import NO_EXTRAS, _find, _gather
from tokbench.record.observations import ExperimentPoint, FactsRead, PromptsStaged
from tokbench.stats import Estimate

METRICS = (
    "greedy_match_ratio",
    "untied_mismatch_ratio",
    "lossy_greedy_match_ratio",
    "batch_match_ratio",
    "sampled_p_value",
    "lossy_sampled_p_value",
)
SAME, OTHER = {"5 1 1": 60, "5 2 2": 40}, {"5 1 1": 20, "5 2 2": 80}


def script(*repetitions: dict[str, object], dtype: str = "float32") -> Script:
    """A cell with a repetition for each: `greedy`, `lossy`, `batch` as (matched of 8, gap), and draws by arm."""
    made = Script()
    cell_id = made.cell()
    made.events = [
        event.model_copy(update={"engine": event.engine.model_copy(update={"dtype": dtype})})
        if isinstance(event, FactsRead) and event.engine is not None
        else event
        for event in made.events
    ]
    for repetition in repetitions:
        trial_id = made.trial(cell_id)
        finished = made.events.pop()
        if "prompts" in repetition:
            names = str(repetition["prompts"]).split()
            made.add(PromptsStaged(trial_id=trial_id, task="edit", sha256="cd" * 32, prompt_ids=tuple(names)))
        for check, found in repetition.items():
            rows = found if isinstance(found, list) else []
            for row, (matched, gap) in enumerate(rows):
                values = {"compared": 8, "matched": matched} | ({} if gap is None else {"top2_gap": gap})
                made.add(point(trial_id, {"check": check, "row": row, "rows": len(rows)}, values))
            if isinstance(found, dict) and check != "settings":
                settings: dict[str, str | int | float] = {"check": "sampled", "arm": check, "rows": 8}
                settings |= {"temperature": 1.0} | repetition.get("settings", {})  # type: ignore[operator]
                made.add(point(trial_id, settings, found))
        made.add(finished)
    made.end()
    return made


def point(trial_id: str, settings: dict[str, str | int | float], values: dict[str, int | float]) -> ExperimentPoint:
    return ExperimentPoint(
        trial_id=trial_id,
        window_id=f"{trial_id}/experiment/{'/'.join(map(str, settings.values()))}",
        experiment="lossless",
        settings=settings,
        duration_s=0.5,
        stamped_by="script",
        values=values,
    )


def metrics(folder: Path, *repetitions: dict[str, object]) -> dict[str, Estimate | Missing]:
    [cell] = evaluate(script(*repetitions).run(folder), "run").cells
    return {name: cell.metrics[name] for name in METRICS}


def value(found: Estimate | Missing) -> float | str:
    return found.value if isinstance(found, Estimate) else found.reason


def greedy(*matched: int, lossy: int = 3, gap: float | None = None) -> dict[str, object]:
    return {
        "greedy": [(count, gap if count < 8 else None) for count in matched],
        "lossy": [(lossy, 0.5)] * len(matched),
        "batch": [(8, None)] * len(matched),
    }


def test_shares_are_exact_counts_over_all_repetitions(tmp_path: Path) -> None:
    first, second = {"prompts": "a b c"}, {"prompts": "d e f"}
    found = metrics(tmp_path, first | greedy(8, 8, 8), second | greedy(8, 2, 8, gap=0.25))
    assert (5 / 6, 6, "exact", None) == (
        value(found["greedy_match_ratio"]),
        *(getattr(found["greedy_match_ratio"], name) for name in ("n", "statistic", "low")),
    )
    assert (1 / 6, 0.0, 1.0) == tuple(
        value(found[name]) for name in ("untied_mismatch_ratio", "lossy_greedy_match_ratio", "batch_match_ratio")
    )


@pytest.mark.parametrize("named", [True, False], ids=["of a frozen set", "the same in every repetition"])
def test_a_prompt_that_comes_round_again_is_one_prompt(tmp_path: Path, named: bool) -> None:
    """By its worst repetition: 33 prompts worked through twice bound a change as 33 do, and not as 66."""
    names = {"prompts": "a b c"} if named else {}
    repetitions = (greedy(8, 2, 8, gap=1e-6), greedy(8, 4, 8, gap=0.25), greedy(8, 8, 8))
    found = metrics(tmp_path, *(names | repetition for repetition in repetitions))
    assert isinstance(found["greedy_match_ratio"], Estimate)
    assert (2 / 3, 3) == (found["greedy_match_ratio"].value, found["greedy_match_ratio"].n)
    assert 1 / 3 == value(found["untied_mismatch_ratio"])


def test_in_fewer_bits_no_tie_is_told(tmp_path: Path) -> None:
    """Logits of bfloat16 that lie 0.125 apart are neighbours, and rounding puts either first."""
    for folder, repetition in (("parted", greedy(8, 2, gap=0.125)), ("whole", greedy(8, 8))):
        share = 0.5 if folder == "parted" else 1.0
        (tmp_path / folder).mkdir()
        results = evaluate(script(repetition, dtype="bfloat16").run(tmp_path / folder), "run")
        ratio = results.cells[0].metrics["greedy_match_ratio"]
        assert isinstance(ratio, Estimate) and (share, 2, "mean") == (ratio.value, ratio.n, ratio.statistic)
        clopper = stats.binomtest(round(2 * share), 2).proportion_ci(0.95, "exact")  # 2 of 2 do not make it certain
        assert (pytest.approx(clopper.low), pytest.approx(clopper.high)) == (ratio.low, ratio.high)
        found = value(results.cells[0].metrics["untied_mismatch_ratio"])
        material = _gather(_find([results], (), ()), (), (), NO_EXTRAS)
        [section] = lossless_sections(material)
        table = next(block for block in section.blocks if isinstance(block, Table))
        if folder == "whole":
            assert 0.0 == found and "unchanged, and the lossy rule was found" == table.rows[0][-1].text
            continue
        assert "in bfloat16 rounding parts more than ties" in str(found)
        assert "differs, as rounding may: see another batch" == table.rows[0][-1].text
        assert (
            "they part behind 2 to 2 tokens, where the two best logits lie 0.12 to 0.12 apart" == table.rows[0][4].note
        )


@pytest.mark.parametrize(("gap", "expected"), [(1e-5, 0.0), (1e-4, 1 / 3), (3.0, 1 / 3)])
def test_only_what_no_tie_explains_is_untied(tmp_path: Path, gap: float, expected: float) -> None:
    assert expected == value(metrics(tmp_path, greedy(8, 2, 8, gap=gap))["untied_mismatch_ratio"])


def test_without_logits_nobody_can_tell_a_tie(tmp_path: Path) -> None:
    found = metrics(tmp_path, greedy(8, 2, 8))
    assert "the engine does not show the logits" in str(value(found["untied_mismatch_ratio"]))
    assert 2 / 3 == value(found["greedy_match_ratio"])


def test_a_comparison_that_was_not_made_has_no_share(tmp_path: Path) -> None:
    found = metrics(tmp_path, {"greedy": [(8, None)], "lossy": [(3, 0.5)]})
    assert "that comparison was not made in this cell" == value(found["batch_match_ratio"])
    assert 1.0 == value(found["greedy_match_ratio"])


def test_without_the_experiment_nothing_is_said(tmp_path: Path) -> None:
    found = metrics(tmp_path, {})
    assert {"the experiment `lossless` was not run in this cell"} == {value(found[name]) for name in METRICS}


def p_of(left: list[int], right: list[int]) -> float:
    return float(stats.chi2_contingency([left, right], correction=False, lambda_="log-likelihood").pvalue)


def test_p_of_all_prefixes_is_corrected_for_their_number(tmp_path: Path) -> None:
    first = {"prompts": "a", **greedy(8), "plain": SAME, "speculative": SAME, "lossy": [(3, 0.5)]}
    second = {"prompts": "b", **greedy(8), "plain": SAME, "speculative": {"5 1 1": 30, "5 2 2": 70}}
    found = metrics(tmp_path, first, second, second)  # without a seed the same prefix again has the same draws
    least = p_of([60, 40], [30, 70])
    assert pytest.approx(2 * min(2 * least, stats.chi2.sf(stats.chi2.isf(least, 1), 2))) == value(
        found["sampled_p_value"]
    )
    assert isinstance(found["sampled_p_value"], Estimate) and 2 == found["sampled_p_value"].n
    assert "nothing was drawn" in str(value(found["lossy_sampled_p_value"]))


def test_draws_of_other_random_numbers_behind_one_prefix_are_counted_together(tmp_path: Path) -> None:
    repetitions = [
        {**greedy(8), "plain": SAME, "speculative": drafted, "settings": {"seed": seed}}
        for seed, drafted in ((7, OTHER), (8, SAME), (8, SAME))
    ]
    found = metrics(tmp_path, *repetitions)
    assert pytest.approx(p_of([120, 80], [80, 120])) == value(found["sampled_p_value"])


def test_rows_of_one_repetition_are_prefixes_of_their_own(tmp_path: Path) -> None:
    made = script({"prompts": "a b", **greedy(8, 8)})
    finished = next(event for event in made.events if event.event == "trial_finished")
    for row in range(2):
        for arm, counts in (("plain", SAME), ("speculative", SAME if row else OTHER)):
            settings = {"check": "sampled", "arm": arm, "row": row, "seed": 3, "temperature": 1.0}
            made.events.insert(made.events.index(finished), point(finished.trial_id, settings, dict(counts)))
    [cell] = evaluate(made.run(tmp_path), "run").cells
    assert [pytest.approx(p_of([60, 40], [20, 80])), 1.0] == [
        test.p_value for test in g_tests(cell.record, "speculative")
    ]


def test_one_prefix_needs_no_correction_and_many_do_not_hide_one() -> None:
    assert 0.02 == combined_p([GTest(0.02, 5.4, 1, 100)])
    quiet, loud = GTest(0.5, 0.45, 1, 100), GTest(1e-6, 24.0, 1, 100)
    assert pytest.approx(2 * 20 * 1e-6) == combined_p([loud, *[quiet] * 19])
    assert 1.0 == combined_p([quiet, quiet])
    small = GTest(float(stats.chi2.sf(3.0, 1)), 3.0, 1, 100)  # 0.083 each: only together are they a finding
    assert pytest.approx(2 * float(stats.chi2.sf(30.0, 10))) == combined_p([small] * 10)
    with pytest.raises(ValueError):
        combined_p([])


def test_p_of_many_prefixes_holds_its_level() -> None:
    dice = random.Random(3)

    def prefix() -> GTest:
        sides = (Counter(f"5 {outcome}" for outcome in dice.choices("abcdef", [9, 5, 3, 2, 1, 1], k=100)) for _ in "ab")
        tested = g_test(*(dict(side) for side in sides))
        assert tested is not None
        return tested

    found = [combined_p([prefix() for _ in range(6)]) for _ in range(150)]
    assert sum(each < 0.1 for each in found) <= 24  # 15 expected at most, 3.7 of spread


def test_a_shift_of_the_size_that_is_told_is_found_as_often_as_is_told() -> None:
    """Two outcomes, one prefix: the chances 0.5 - δ/2 and 0.5 + δ/2 lie δ apart in total variation, the worst case."""
    dice, draws = random.Random(5), 400
    shift = detectable_shift([GTest(0.5, 0.5, 1, draws)])
    assert shift is not None and 0.1 < shift < 0.25

    def found() -> bool:
        sides = [Counter(dice.choices(["5 a", "5 b"], [1 + s, 1 - s], k=draws)) for s in (-shift, shift)]
        tested = g_test(*map(dict, sides))
        return tested is not None and combined_p([tested]) < 0.001

    assert 0.83 <= statistics.fmean(found() for _ in range(200)) <= 0.97


def test_few_draws_are_sure_of_nothing() -> None:
    assert detectable_shift([GTest(0.5, 0.5, 4, 8)]) is None
    assert detectable_shift([]) is None
    many, few = (detectable_shift([GTest(0.5, 0.5, 4, count)] * 8) for count in (1000, 100))
    assert many is not None and few is not None and pytest.approx(few / 10**0.5) == many


def test_every_metric_is_exact() -> None:
    assert all(catalog()[name].is_exact for name in METRICS)


def test_first_tokens_are_tables_of_their_own() -> None:
    plain = {"5 1": 30, "5 2": 30, "6 1": 10, "6 2": 30}
    other = {"5 1": 20, "5 2": 40, "6 1": 20, "6 2": 20, "7 1": 50}
    tables = ([[30, 30], [20, 40]], [[10, 30], [20, 20]])
    expected = [stats.chi2_contingency(table, correction=False, lambda_="log-likelihood") for table in tables]
    found = g_test(plain, other)
    assert found is not None
    assert pytest.approx(sum(test.statistic for test in expected)) == found.statistic
    assert (2, 100) == (found.degrees, found.draws)  # the first token 7 has nothing to be set beside
    assert pytest.approx(stats.chi2.sf(found.statistic, 2)) == found.p_value


def test_later_tokens_are_tested_behind_what_stands_before_them() -> None:
    plain = {"5 1 8": 30, "5 1 9": 30, "5 2 8": 40}
    other = {"5 1 8": 10, "5 1 9": 50, "5 2 8": 40}
    expected = stats.chi2_contingency([[30, 30], [10, 50]], correction=False, lambda_="log-likelihood").statistic
    found = g_test(plain, other)
    assert found is not None
    assert (pytest.approx(expected), 2, 100) == (
        found.statistic,
        found.degrees,
        found.draws,
    )  # 60 and 40 on either side


def test_rare_outcomes_are_counted_together() -> None:
    plain = {"5 1": 80, **{f"5 {outcome}": 2 for outcome in range(2, 12)}}
    other = {"5 1": 80, **{f"5 {outcome}": 2 for outcome in range(12, 22)}}
    assert GTest(1.0, 0.0, 1, 100) == g_test(plain, other)


def test_too_few_draws_are_no_test() -> None:
    assert g_test({"5 1": 4, "5 2": 4}, {"5 1": 4, "5 2": 4}) is None
    assert g_test({"5 1": 50}, {"6 1": 50}) is None
    assert g_test({"5 1": 50}, {"5 1": 50}) is None


def test_the_test_holds_its_level_and_finds_a_lossy_rule() -> None:
    dice, outcomes = random.Random(7), range(1, 13)

    def draws(weights: list[float], count: int = 400) -> dict[str, int]:
        return dict(Counter(f"5 {outcome}" for outcome in dice.choices(outcomes, weights, k=count)))

    even = [1.0 / outcome for outcome in outcomes]
    tests = [g_test(draws(even), draws(even)) for _ in range(200)]
    assert 2 <= sum(test is not None and test.p_value < 0.05 for test in tests) <= 20  # 10 expected
    skewed = [weight * (2.0 if place < 3 else 1.0) for place, weight in enumerate(even)]
    found = g_test(draws(even), draws(skewed))
    assert found is not None and found.p_value < 0.001


@pytest.mark.parametrize(("identical", "prompts", "bound"), [(20, 20, 0.1391), (60, 60, 0.0487), (0, 4, 1.0)])
def test_the_bound_on_what_may_change(identical: int, prompts: int, bound: float) -> None:
    matches = Matches(prompts, identical, (None,) * (prompts - identical))
    assert pytest.approx(bound, abs=5e-5) == mismatch_bound(matches)
    if 0 < identical:
        expected = stats.binomtest(prompts - identical, prompts, alternative="less").proportion_ci(0.95, "exact").high
        assert pytest.approx(expected) == mismatch_bound(matches)


def sections(folder: Path, *repetitions: dict[str, object]) -> list[Section]:
    results = evaluate(script(*repetitions).run(folder), "run")
    return lossless_sections(_gather(_find([results], (), ()), (), (), NO_EXTRAS))


def readings(found: list[Section]) -> list[str]:
    [section] = found
    return [table.rows[0][-1].text for table in section.blocks if isinstance(table, Table)]


def test_a_run_without_the_experiment_has_no_section(tmp_path: Path) -> None:
    assert [] == sections(tmp_path, {})


@pytest.mark.parametrize(
    ("repetition", "reading"),
    [
        (greedy(8, 8), "unchanged, and the lossy rule was found"),
        (greedy(8, 8, lossy=8), "no power: the lossy rule was not found either"),
        (greedy(8, 2, gap=0.2), "output changes"),
        (greedy(8, 2, gap=1e-6), "differs at ties alone, and the lossy rule was found"),
        (greedy(8, 2), "differs"),
    ],
)
def test_how_greedy_output_is_read(tmp_path: Path, repetition: dict[str, object], reading: str) -> None:
    assert [reading] == readings(sections(tmp_path, repetition))


def test_how_many_drafts_were_accepted_stands_beside_what_is_unchanged(tmp_path: Path) -> None:
    results = evaluate(script(greedy(8, 8)).run(tmp_path), "run")
    [cell] = results.cells
    for found, text in ((Estimate(0.25, None, None, 1, "", "mean"), "25 %"), (Missing("no rounds"), "–")):
        cell.metrics["acceptance_ratio"] = found
        [section] = lossless_sections(_gather(_find([results], (), ()), (), (), NO_EXTRAS))
        table = next(block for block in section.blocks if isinstance(block, Table))
        assert text == table.rows[0][3].text
    assert "no rounds" == table.rows[0][3].note


@pytest.mark.parametrize(
    ("drafted", "control", "reading"),
    [
        (SAME, OTHER, "no difference found, and the lossy rule was found"),
        (SAME, SAME, "no power: the lossy rule was not found either"),
        (OTHER, OTHER, "another distribution"),
        ({"5 1 1": 41, "5 2 2": 59}, OTHER, "doubtful: more draws would tell"),
    ],
)
def test_how_draws_are_read(tmp_path: Path, drafted: dict[str, int], control: dict[str, int], reading: str) -> None:
    repetition = {"greedy": [(8, None)], "plain": SAME, "speculative": drafted}
    made = script(repetition)
    # `lossy` names a greedy check and an arm: the arm's point is added by hand
    finished = [event for event in made.events if event.event == "trial_finished"]
    place = made.events.index(finished[0])
    settings: dict[str, str | int | float] = {"check": "sampled", "arm": "lossy", "rows": 8, "temperature": 1.0}
    made.events.insert(place, point(finished[0].trial_id, settings, dict(control)))
    results = evaluate(made.run(tmp_path), "run")
    found = lossless_sections(_gather(_find([results], (), ()), (), (), NO_EXTRAS))
    assert reading == readings(found)[1]
