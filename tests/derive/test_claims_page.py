"""The page of all claims in both languages, its figures, and what stands on it besides: scenarios and frameworks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders import Script
from claims_builders import TODAY
from moe_builders import MoeScript
from tokbench.derive.claims.evidence import load_evidence
from tokbench.derive.claims.judge import judge_claims
from tokbench.derive.claims.rules import load_claims
from tokbench.derive.claims.saying import say_labels
from tokbench.derive.claims.verdicts import Because, ClaimVerdict
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.portability import find_frameworks
from tokbench.derive.published.rows import load_published
from tokbench.derive.report.claims_drawn import draw_claimed_drafts, draw_claimed_experts, experts_blocks
from tokbench.derive.report.claims_figures import draw_family
from tokbench.derive.report.claims_page import FAMILIES, Found, claims_document
from tokbench.derive.report.claims_section import claims_sections
from tokbench.derive.report.claims_settling import UNDECIDED, settling_sections
from tokbench.derive.report.document import Document, Paragraph, Table
from tokbench.derive.report.frameworks_section import frameworks_sections
from tokbench.derive.report.markdown import render_markdown
from tokbench.derive.report.scenarios_section import scenarios_sections
from tokbench.derive.scenarios import WORKS, Scenarios, Speed, Work, find_scenarios, predict_s
from tokbench.derive.words import in_language
from tokbench.record.observations import OutputTokens, TrialFinished
from tokbench.record.run import read_run


@pytest.fixture(scope="module")
def verdicts() -> tuple[ClaimVerdict, ...]:
    return judge_claims(load_claims(), load_evidence(), TODAY)


def page(verdicts: tuple[ClaimVerdict, ...], language: str, results: tuple[Results, ...] = ()) -> str:
    with in_language(language):
        return render_markdown(claims_document(verdicts, Found({}, Scenarios(), results)))


def test_every_claim_stands_in_the_table_the_important_ones_first(verdicts: tuple[ClaimVerdict, ...]) -> None:
    document = claims_document(verdicts, Found({}, Scenarios(), ()))
    (table,) = [block for block in document.sections[0].blocks if isinstance(block, Table)]
    order = {verdict.claim.id: verdict.claim.priority for verdict in verdicts}
    shown = [order[row[0].text] for row in table.rows]
    assert sorted(shown) == shown
    assert len(verdicts) == len(shown)


def test_a_family_goes_from_the_claim_to_numbers_sources_and_the_argument_against(
    verdicts: tuple[ClaimVerdict, ...],
) -> None:
    text = page(verdicts, "en")
    for title in ("## Throughput", "## Speculative decoding", "## Mixture of experts", "## Appendix: the other claims"):
        assert title in text
    own = text.partition("### cerebras-1500-llama70b")[2].partition("\n### ")[0]
    for part in (
        "**Verdict: ",
        "supported if count(best",
        "**claimed** = 1,500 tokens/s",
        "from cerebras-l31-70b-launch",
    ):
        assert part in own
    assert "Strongest argument against: The speed was reached with drafts" in own


def test_the_page_is_chinese_where_it_is_asked_for(verdicts: tuple[ClaimVerdict, ...]) -> None:
    text = page(verdicts, "zh")
    assert "## 混合专家" in text
    assert "最有力的反对理由：这一速度依赖未公开细节的推测解码" in text
    assert "Strongest argument" not in text


def test_a_family_is_drawn_where_something_stands_beside_the_claim(verdicts: tuple[ClaimVerdict, ...]) -> None:
    own = [verdict for verdict in verdicts if verdict.claim.topic == "throughput"]
    (drawn,) = draw_family("throughput", own)
    assert "claims_throughput_1.png" == drawn.figure.file_name
    assert drawn.png.startswith(b"\x89PNG")
    assert "cerebras-1500-llama70b: claimed: 1,500 tokens/s" in drawn.svg
    assert () == draw_family("none", [])
    assert set(FAMILIES) <= {verdict.claim.topic for verdict in verdicts}


def triple(folder: Path) -> Results:
    """A mixture of 10 ms a step at one row, between twins of 8 and 50 ms; and slower steps of 8 rows."""
    script = MoeScript()
    for rows, times in ((1, (0.010, 0.008, 0.050)), (8, (0.030, 0.010, 0.060))):
        for name, step_s in zip(("cpu-moe", "cpu-dense-active", "cpu-dense-total"), times, strict=True):
            script.shaped(name, rows, step_s=[step_s * (1 + 0.001 * index) for index in range(4)])
    script.write(folder)
    return evaluate(read_run(folder), "run")


def test_mixtures_are_drawn_beside_their_twins_with_bytes_and_times(tmp_path: Path) -> None:
    results = [triple(tmp_path)]
    times, memory = draw_claimed_experts(results)
    assert ["experts-bathtub.png", "claims_moe_memory.png"] == [one.figure.file_name for one in (times, memory)]
    assert "static batch 8: 2" in times.svg
    for said in ("cpu-moe (random weights): 0.856 GB, 100 %", "cpu-dense-active (random weights): 0.151 GB, 17.6 %"):
        assert said in memory.svg
    reading, table = experts_blocks(results)
    assert isinstance(reading, Paragraph) and isinstance(table, Table)
    assert ["1", "8"] == [row[0].text for row in table.rows]
    assert () == draw_claimed_experts([]) == experts_blocks([]) == draw_claimed_drafts([], ())


def test_the_numbers_of_mixtures_stand_in_their_family_in_both_languages(
    tmp_path: Path, verdicts: tuple[ClaimVerdict, ...]
) -> None:
    results = (triple(tmp_path),)
    for language, title, said in (("en", "## Mixture of experts", "wider twin"), ("zh", "## 混合专家", "等总量模型")):
        own = page(verdicts, language, results).partition(f"{title}\n")[2].partition("\n### ")[0]
        assert said in own and "| 8 |" in own


def test_what_is_undecided_tells_what_it_takes_and_the_command(verdicts: tuple[ClaimVerdict, ...]) -> None:
    """Every part that is open or untested has one row, and none says only that something is missing."""
    (section,) = settling_sections(verdicts)
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    undecided = [part for verdict in verdicts for part in verdict.parts if part.outcome in UNDECIDED]
    assert len(undecided) == len(table.rows)
    for part, (_, _, _, wanted, command) in zip(undecided, table.rows, strict=True):
        assert part.because is not Because.NOT_TESTED or command.text.startswith("tokbench run configs/")
        assert wanted.text and "no record that was given" not in wanted.text
    assert [] == settling_sections([])


def test_a_config_for_a_large_device_or_a_key_says_so(verdicts: tuple[ClaimVerdict, ...]) -> None:
    """A reader with a laptop was sent to a config that cannot run there."""
    for verdict in verdicts:
        for part in verdict.parts:
            if part.because is Because.NOT_TESTED and re.search(r"-h200|groq\.yaml", part.needs or ""):
                assert part.takes is not None, f"{verdict.claim.id} {part.half.name}"


def test_the_table_says_in_words_why_and_on_what(verdicts: tuple[ClaimVerdict, ...]) -> None:
    (table,) = [block for block in claims_sections(verdicts)[0].blocks if isinstance(block, Table)]
    rows = {row[0].text: [cell.text for cell in row[3:]] for row in table.rows}
    assert ["partly", "between the rules", "one source, second-hand"] == rows["cerebras-1500-llama70b"]
    assert "supported: speed; open (no such evidence): parity" == rows["groq-1320-specdec-parity"][1]
    assert () == table.footnotes()


def test_reason_codes_of_suspect_cells_are_said_once() -> None:
    labels = ("random weights", "suspect: UNSTEADY, RANDOM_WEIGHTS", "suspect: SHARED_PROCESS, UNSTEADY")
    assert "random weights, suspect: UNSTEADY, RANDOM_WEIGHTS, SHARED_PROCESS" == say_labels(labels)


def answers(folder: Path, agent_s: float) -> Results:
    """A model of 1000 prompt tokens/s and 10 output tokens/s, and one call of the kind `pricing` of so many seconds."""
    script = Script()
    base = script.cell(prompt_tokens=500, output_tokens=11, labels={"claim": "answer-time"})
    real = script.cell(prompt_tokens=1000, output_tokens=50, labels={"claim": "scenario", "scenario": "pricing"})
    for _ in range(3):
        script.trial(base, prefill_s=0.5, step_s=0.1)
        script.trial(real, prefill_s=1.0, step_s=(agent_s - 1.0) / 49)
    script.write(folder)
    return evaluate(read_run(folder), "run")


def test_a_call_is_predicted_from_prefill_and_decode_and_set_beside_what_it_took(tmp_path: Path) -> None:
    found = find_scenarios([answers(tmp_path, agent_s=5.0)], load_published())
    (check,) = found.checks
    assert ("pricing", pytest.approx(5.9), pytest.approx(5.0)) == (
        check.work.name,
        check.predicted_s,
        check.measured.value,
    )
    assert pytest.approx(0.18) == check.error_ratio
    ours = {item.work.name: item.seconds for item in found.predictions if item.speed.prefill_tokens_per_s is not None}
    assert pytest.approx(5 * (1.0 + 39.9)) == ours["agent"]
    vendors = {item.speed.who for item in found.predictions} & {"cerebras", "groq"}
    assert vendors
    assert len(WORKS) * (1 + len(vendors)) == len(found.predictions)
    text = render_markdown(Document("T", tuple(scenarios_sections(found))))
    assert "more than the 10 % that the rule allows" in text
    assert "agent: 5 x (1000 in, 400 out)" in text


def test_a_vendor_waits_for_its_published_first_token_in_every_call() -> None:
    speed = Speed("cerebras", 0.2, None, 1000.0, "as published")
    assert pytest.approx(5 * (0.2 + 0.399)) == predict_s(Work("agent", 1000, 400, 5), speed)


def test_the_first_token_comes_with_the_prefill_and_is_not_decoded_again(tmp_path: Path) -> None:
    """Three tokens were predicted as three steps behind the first one."""
    found = find_scenarios([answers(tmp_path, agent_s=1.0 + 49 * 0.1)], load_published())
    assert pytest.approx(0.0, abs=1e-9) == found.checks[0].error_ratio


def test_each_record_has_a_base_of_its_own(tmp_path: Path) -> None:
    """The call of a second record of the same model had no prediction beside it."""
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        answers(tmp_path / name, agent_s=5.0)
        results.append(evaluate(read_run(tmp_path / name), name))
    assert ["one", "two"] == [check.cell.run_name for check in find_scenarios(results, load_published()).checks]


def test_a_vendors_speed_and_first_token_are_the_newest_of_their_rows(tmp_path: Path) -> None:
    """Whichever row came last in the file was taken, replaced ones too, under the date of another."""
    figures = load_published()
    results = [answers(tmp_path, agent_s=5.0)]
    for pool in (figures, tuple(reversed(figures))):
        speeds = dict.fromkeys(item.speed for item in find_scenarios(results, pool).predictions)
        told = {speed.who: speed.conditions for speed in speeds if speed.first_s is not None}
        assert {"cerebras", "groq"} >= told.keys() != set()
        for said in told.values():
            used = [row for row in figures if f"{row.id} ({row.published})" in said]
            assert ["decode_tokens_per_s", "ttft_s"] == sorted(row.metric for row in used), said
            (speed,) = [row for row in used if row.metric == "decode_tokens_per_s"]
            rivals = [
                row
                for row in figures
                if (row.vendor, row.model, row.measured_by, row.metric)
                == (speed.vendor, speed.model, speed.measured_by, speed.metric)
                and row.superseded_by is None
            ]
            assert speed.superseded_by is None
            assert speed.published[:4] == max(row.published[:4] for row in rivals)


def test_without_such_cells_there_is_no_section(tmp_path: Path) -> None:
    script = Script()
    script.trial(script.cell())
    script.write(tmp_path)
    results = (evaluate(read_run(tmp_path), "run"),)
    assert [] == scenarios_sections(find_scenarios(results, load_published()))
    assert [] == frameworks_sections(results)


def test_frameworks_stand_side_by_side_with_share_and_tokens(tmp_path: Path) -> None:
    script = Script()
    for name, step_s, tokens in (("torch", 0.02, (1, 2, 3)), ("jax", 0.04, (1, 2, 3)), ("mlx", 0.05, (1, 9, 3))):
        cell_id = script.cell(mode=name, labels={"framework": name, "platform": "cpu"})
        for index in range(3):
            trial_id = script.trial(cell_id, step_s=step_s)
            finished = script.events.pop()
            assert isinstance(finished, TrialFinished)
            kept = [OutputTokens(trial_id=trial_id, token_ids=(tokens,))] if index == 0 else []
            script.add(*kept, finished)
    script.write(tmp_path)
    results = (evaluate(read_run(tmp_path), "run"),)
    rows = find_frameworks(results)
    assert [None, 3, 1] == [row.tokens_equal for row in rows]
    text = render_markdown(Document("T", tuple(frameworks_sections(results))))
    assert "all 3 as with torch" in text
    assert "1 of 3 as with torch" in text


def test_tokens_of_weights_that_each_engine_drew_are_not_set_side_by_side(tmp_path: Path) -> None:
    """JAX's random weights are not PyTorch's: "1 of 3 as with torch" told nothing of either."""
    script = Script()
    for name in ("torch", "torch-compile", "jax"):
        cell_id = script.cell(mode=name, weights="random", labels={"framework": name, "platform": "cpu"})
        trial_id = script.trial(cell_id)
        finished = script.events.pop()
        assert isinstance(finished, TrialFinished)
        script.add(OutputTokens(trial_id=trial_id, token_ids=((1, 2, 3),)), finished)
    script.write(tmp_path)
    results = evaluate(read_run(tmp_path), "run")
    spec = results.cells[2].record.spec
    results.cells[2].record.spec = spec.model_copy(update={"engine": spec.engine.model_copy(update={"kind": "jax"})})
    assert [None, 3, None] == [row.tokens_equal for row in find_frameworks((results,))]
