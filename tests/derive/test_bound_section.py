"""The section "Where the limit is": worded from bounds that are built by hand, so that every text can be foreseen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from builders import Script
from scripted_facts import ceilings
from tokbench.derive.bounds import find_bounds
from tokbench.derive.bounds.found import (
    Bounds,
    CellBound,
    Choice,
    ContextCost,
    DepthFloor,
    MemoryRow,
    Point,
    PrefillCurve,
    RepeatRow,
    StepFit,
)
from tokbench.derive.evaluate import CellResult, Results, evaluate
from tokbench.derive.report import bound_figures
from tokbench.derive.report.bound_figures import draw_bounds
from tokbench.derive.report.bound_section import bound_sections
from tokbench.derive.report.document import Block, Bullets, Code, Document, Figure, Paragraph, Section, Table
from tokbench.derive.report.markdown import render_markdown
from tokbench.derive.report.material import Material
from tokbench.derive.standing import Standing
from tokbench.record.facts import CeilingFacts, CeilingRate
from tokbench.record.observations import ReadPass, TrialFinished
from tokbench.stats import Estimate, exact

PARTS = (
    "Where the limit is",
    "The measured ceilings",
    "What bounds each cell",
    "Step time over bytes",
    "Depth",
    "Context",
    "Prefill over the prompt's length",
    "Kernels, options and precision",
    "Spread of a step",
    "Memory against its prediction",
    "Whether a pass repeats",
)
SENTENCE = "Memory <of | all>: at the measured ceilings a step is 80 % reading."
NOTHING = Bounds("run", (), (), (), (), (), (), (), (), (), (), ())


def rated_ceilings() -> CeilingFacts:
    rate = CeilingRate(
        kind="matmul", dtype="bfloat16", per_s=5e14, median_per_s=4e14, passes=31, buffer_bytes=3_000_000_000
    )
    read = rate.model_copy(update={"kind": "read_mv", "per_s": 2e12, "median_per_s": 1.5e12})
    left_out = ("float8 matmul: this card has none",)
    return ceilings().model_copy(update={"rates": (rate, read), "left_out": left_out})


def scripted_results(folder: Path) -> Results:
    """An eager and a compiled cell with a known spread of their steps, and one that ran out of memory."""
    script = Script(ceiling=rated_ceilings())
    eager, compiled = script.cell(), script.cell(mode="compiled")
    for cell_id, step_s in ((eager, 0.02), (compiled, 0.0125)):
        script.trial(cell_id, step_s=step_s)
    script.fail(script.cell(static_batch=64), "oom", "tried to allocate 12 GiB")
    results = evaluate(script.run(folder), "run")
    spread = {"step_jitter_ratio": Estimate(1.75, None, None, 1, "", "geometric_mean")}
    steady = {"step_jitter_ratio": Estimate(1.25, None, None, 1, "", "geometric_mean")}
    first, second, third = results.cells
    first = dataclasses.replace(first, metrics=first.metrics | spread)
    second = dataclasses.replace(second, metrics=second.metrics | steady)
    return dataclasses.replace(results, cells=(first, second, third))


def scripted_bounds(results: Results) -> Bounds:
    """Something of everything."""
    eager, compiled, full = results.cells
    points = (Point(eager, 0.02, 16e9, 16e9), Point(compiled, 0.0125, 17e9, 32e9))
    return Bounds(
        run_name="run",
        points=points,
        fits=(StepFit("run", "compiled", "bf16", 0.0045, 2e12, 0.9991, points, (0.004, 0.005), (1.5e12, None)),),
        unfitted=("eager, bf16: no fit, 1 different sizes of a step and 3 are needed",),
        cells=(
            CellBound(eager, "overhead", 0.02, 0.4, 0.002, 0.93, 0.012, 812, "torch.profiler", "Launches."),
            CellBound(compiled, "memory", 0.0125, 0.8, None, None, 0.0025, None, None, SENTENCE),
        ),
        depths=(
            DepthFloor(
                run_name="run",
                mode="compiled",
                model="floor (random weights)",
                layers=(4, 8, 16),
                step_s=(0.001, 0.002, 0.004),
                s_per_layer=0.00025,
                t0_s=0.0,
                r_squared=1.0,
                largest_byte_share=0.35,
                caps_tokens_per_s=((32, 125.0), (80, 50.0), (126, 31.7)),
            ),
        ),
        contexts=(ContextCost("run", "eager", "m", 1, (128, 512, 2048), (0.01, 0.011, 0.015), 2.6e-6, 1.3e-6),),
        prefills=(
            PrefillCurve("run", "eager", "m", 1, (128, 512, 2048), (0.1, 0.4, 2.0), 1.08, 1.16, (0.5, 0.6, 0.25)),
        ),
        memory=(
            MemoryRow(eager, 20_000_000_000, 17e9, 16.5e9, True),
            MemoryRow(full, 90_000_000_000, None, None, False),
        ),
        choices=(
            Choice(
                run_name="run",
                setting="engine.attention",
                cells=(compiled, eager),
                values=("sdpa", "eager"),
                slowdowns=(exact(1.0, ""), Estimate(1.6, 1.5, 1.7, 5, "", "geometric_mean")),
                byte_ratios=(1.0, None),
            ),
        ),
        repeats=(
            RepeatRow(eager, "itself", 40, True, False, 0.125),
            RepeatRow(compiled, "alone", 40, False, None, None),
        ),
        ceiling_sentences=("The measured read ceiling is 2.00 TB/s.",),
    )


def material_of(results: Results, bounds: Bounds, figures: tuple[Figure, ...] = ()) -> Material:
    return Material((results,), Standing(None, None, (), ()), (), (), figures, (bounds,))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return scripted_results(tmp_path)


@pytest.fixture
def sections(results: Results) -> dict[str, Section]:
    return {section.title: section for section in bound_sections(material_of(results, scripted_bounds(results)))}


def rows_of(section: Section) -> list[list[str]]:
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    return [[cell.text for cell in row] for row in table.rows]


def notes_of(section: Section) -> list[str]:
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    return [footnote.text for footnote in table.footnotes()]


def lines_of(block: Block) -> list[str]:
    assert isinstance(block, Bullets)
    return [item.text for item in block.items]


def test_every_part_appears_in_order(sections: dict[str, Section]) -> None:
    assert tuple(sections) == PARTS
    assert [section.level for section in sections.values()] == [2] + [3] * (len(PARTS) - 1)


def test_the_opening_is_four_plain_sentences(sections: dict[str, Section]) -> None:
    stream, fit, depth, kernels = lines_of(sections[PARTS[0]].blocks[0])
    assert stream.endswith(f"12.5 ms a step. {SENTENCE}") and "compiled" in stream
    assert fit == (
        "Single streams in compiled, bf16: a step costs t0 = 4.50 ms (4.00 ms to 5.00 ms) plus its bytes at "
        "2.00 TB/s (1.50 TB/s to no upper end) (R² 0.9991, 2 points); the measured read ceiling is 2.00 TB/s."
    )
    assert "no floor of depth alone" in depth and "250 µs per decoder layer" in depth
    assert "random weights" in depth and "cannot pass" not in depth
    assert kernels == "Fastest of what was tried: engine.attention: sdpa in the one comparison."


@pytest.mark.parametrize(("share", "is_floor"), [(0.1, True), (0.2, False), (2.26, False), (None, False)])
def test_a_cap_is_told_only_where_bytes_are_little_of_a_step(
    results: Results, share: float | None, is_floor: bool
) -> None:
    bounds = scripted_bounds(results)
    floor = dataclasses.replace(bounds.depths[0], largest_byte_share=share)
    first, *_ = bound_sections(material_of(results, dataclasses.replace(bounds, depths=(floor,))))
    told = lines_of(first.blocks[0])[2]
    assert is_floor == ("80 layers cannot pass 50.0 tokens/s" in told)
    assert is_floor != ("no floor of depth alone" in told)


@pytest.mark.parametrize(("slope", "is_noted"), [(2.6e-6, False), (2e-7, True), (-1e-7, True)])
def test_context_that_costs_less_than_its_bytes_is_said_to_be_no_cost(
    results: Results, slope: float, is_noted: bool
) -> None:
    bounds = scripted_bounds(results)
    cost = dataclasses.replace(bounds.contexts[0], s_per_token=slope)
    sections = bound_sections(material_of(results, dataclasses.replace(bounds, contexts=(cost,))))
    notes = notes_of(next(section for section in sections if section.title == "Context"))
    assert is_noted == any("less than reading its bytes takes" in note for note in notes)


def test_ceilings_in_their_units_and_what_was_left_out(sections: dict[str, Section]) -> None:
    section = sections["The measured ceilings"]
    assert rows_of(section) == [
        ["matrix multiply", "bfloat16", "500 TFLOP/s", "400 TFLOP/s", "31", "3.00 GB"],
        ["read (matrix times vector)", "bfloat16", "2.00 TB/s", "1.50 TB/s", "31", "3.00 GB"],
    ]
    said = ["The measured read ceiling is 2.00 TB/s.", "Not measured: float8 matmul: this card has none"]
    assert lines_of(section.blocks[1]) == said


def test_rates_beside_repetitions_are_named_where_there_are_any(tmp_path: Path) -> None:
    for count in (0, 2):
        script = Script(ceiling=rated_ceilings())
        script.trial(script.cell())
        finished = [event for event in script.events if isinstance(event, TrialFinished)][-1]
        at = script.events.index(finished)
        for side in ("before", "after")[:count]:
            read = {"window_id": f"{finished.trial_id}/decode", "read_bytes": 10**9, "pass_s": (5e-4,)}
            script.events.insert(
                at,
                ReadPass(trial_id=finished.trial_id, side=side, at_ns=finished.at_ns, **read),  # type: ignore[arg-type]
            )
        (tmp_path / str(count)).mkdir()
        found = evaluate(script.run(tmp_path / str(count)), "run")
        sections = {section.title: section for section in bound_sections(material_of(found, find_bounds(found)))}
        lines = lines_of(sections["The measured ceilings"].blocks[1])
        assert bool(count) == any("read beside a repetition" in line for line in lines)


def test_what_bounds_each_cell(sections: dict[str, Section]) -> None:
    section = sections["What bounds each cell"]
    first, second = (row[4:] for row in rows_of(section))
    assert first == ["20.0 ms", "40.0 %", "37.6 %", "0.200 %", "93.0 %", "12.0 ms", "812", "what lies between kernels"]
    assert second == ["12.5 ms", "80.0 %", "60.1 %", "–", "–", "2.50 ms", "–", "memory"]
    assert {"counted by torch.profiler", "Launches.", SENTENCE, "not counted"} <= set(notes_of(section))


def test_fit_row_and_why_there_is_no_other(sections: dict[str, Section]) -> None:
    section = sections["Step time over bytes"]
    (row,) = rows_of(section)
    assert row[:3] == ["compiled", "bf16", "4.50 ms (4.00 ms to 5.00 ms)"]
    assert row[3:] == ["2.00 TB/s (1.50 TB/s to no upper end)", "2.00 TB/s", "0.9991", "2"]
    assert lines_of(section.blocks[-1]) == ["eager, bf16: no fit, 1 different sizes of a step and 3 are needed"]


def test_depth_caps_and_that_bytes_are_a_good_part(sections: dict[str, Section]) -> None:
    section = sections["Depth"]
    (row,) = rows_of(section)
    assert row[2:] == ["4, 8, 16", "1.00 ms to 4.00 ms", "250 µs", "0 s", "1.000", "35.0 %", "125", "50.0", "31.7"]
    assert any("no floor of depth alone" in note for note in notes_of(section))


def test_context_and_prefill(sections: dict[str, Section]) -> None:
    (context,) = rows_of(sections["Context"])
    assert context[2:] == ["1", "128, 512, 2,048", "10.0 ms to 15.0 ms", "2.60 µs", "1.30 µs"]
    (prefill,) = rows_of(sections["Prefill over the prompt's length"])
    assert prefill[4:] == ["100 ms to 2.00 s", "1.08", "1.16", "50.0 %", "25.0 %"]


def test_choices_fastest_first_with_interval(sections: dict[str, Section]) -> None:
    first, second = rows_of(sections["Kernels, options and precision"])
    assert (first[0], first[5:]) == ("engine.attention", ["sdpa", "1.00", "1.00"])
    assert second[5:] == ["eager", "1.60 (1.50 – 1.70), n 5", "–"]


def test_jitter_stands_beside_that_of_eager(sections: dict[str, Section]) -> None:
    assert [row[4:] for row in rows_of(sections["Spread of a step"])] == [["1.25", "1.75"]]


def test_memory_ratio_and_the_cell_that_ran_out(sections: dict[str, Section]) -> None:
    section = sections["Memory against its prediction"]
    first, second = (row[4:] for row in rows_of(section))
    assert first == ["20.0 GB", "17.0 GB", "16.5 GB", "0.850", "measured"]
    assert second == ["90.0 GB", "–", "–", "–", "out of memory"]
    assert {"of the whole process, Python and libraries included", "tried to allocate 12 GiB"} <= set(notes_of(section))


def test_repeats(sections: dict[str, Section]) -> None:
    assert [row[4:] for row in rows_of(sections["Whether a pass repeats"])] == [
        ["the same static batch again", "40", "yes", "no", "0.125"],
        ["its first row alone", "40", "no", "–", "–"],
    ]


def test_texts_are_handed_on_as_they_are_and_escaped_by_the_renderer(sections: dict[str, Section]) -> None:
    assert SENTENCE in notes_of(sections["What bounds each cell"])
    text = render_markdown(Document("t", tuple(sections.values())))
    assert "Memory &lt;of \\| all&gt;" in text and "<of" not in text


def test_without_a_step_it_says_why_and_what_to_run(results: Results) -> None:
    (section,) = bound_sections(material_of(results, NOTHING))
    why, command = section.blocks
    assert isinstance(why, Paragraph) and "nothing tells where the limit is" in why.text
    assert command == Code("tokbench run configs/limit.yaml")


def test_parts_without_data_are_left_out_and_named(results: Results) -> None:
    bounds = dataclasses.replace(NOTHING, cells=scripted_bounds(results).cells)
    first, *others = bound_sections(material_of(results, bounds))
    assert [section.title for section in others] == [PARTS[1], PARTS[2], "Spread of a step"]
    texts = [block.text for block in first.blocks if isinstance(block, Paragraph | Code)]
    assert "what a layer costs; what context costs" in texts[0]
    assert texts[1] == "tokbench run configs/limit.yaml"


def test_several_runs_are_named(results: Results) -> None:
    bounds = scripted_bounds(results)
    both = dataclasses.replace(material_of(results, bounds), results=(results, results), bounds=(bounds, bounds))
    first, *_ = bound_sections(both)
    assert all(line.startswith("run: ") for line in lines_of(first.blocks[0]))


def test_figures_are_drawn_and_placed(results: Results) -> None:
    bounds = scripted_bounds(results)
    drawn = draw_bounds([bounds])
    assert [item.figure.file_name for item in drawn] == ["limit_roofline.png", "limit_fit.png"]
    assert all(item.png.startswith(b"\x89PNG") for item in drawn)
    sections = bound_sections(material_of(results, bounds, tuple(item.figure for item in drawn)))
    placed = [(section.title, block) for section in sections for block in section.blocks if isinstance(block, Figure)]
    assert placed == [(PARTS[0], drawn[0].figure), ("Step time over bytes", drawn[1].figure)]


@pytest.mark.parametrize(("t0_s", "from_smallest"), [(1e-4, False), (-1e-4, True)])
def test_a_fit_below_zero_is_drawn_from_its_smallest_point_on(
    results: Results, t0_s: float, from_smallest: bool
) -> None:
    fit = dataclasses.replace(scripted_bounds(results).fits[0], t0_s=t0_s)
    least = min(point.step_bytes for point in fit.points)
    drawn: list[list[float]] = []
    axes = SimpleNamespace(plot=lambda x, y, **_: drawn.append(x))
    bound_figures._plot_fit(axes, fit, [least * 0.9, least * 1.1, least * 2], "black")  # type: ignore[arg-type]
    assert len(drawn[0]) == (2 if from_smallest else 3)


def test_figures_without_data_are_left_out(results: Results) -> None:
    bounds = scripted_bounds(results)
    assert draw_bounds([NOTHING]) == ()
    without_fit = dataclasses.replace(bounds, fits=())
    assert [item.figure.file_name for item in draw_bounds([without_fit])] == ["limit_roofline.png"]
    bare = tuple(dataclasses.replace(point, cell=without_ceiling(point.cell)) for point in bounds.points)
    assert draw_bounds([dataclasses.replace(bounds, fits=(), points=bare)]) == ()


def without_ceiling(cell: CellResult) -> CellResult:
    return dataclasses.replace(
        cell, metrics={name: value for name, value in cell.metrics.items() if name != "read_bytes_per_s"}
    )
