"""Records of several devices: a part is of one, and what that one did not measure is missing, never another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from builders import Script
from claims_builders import TODAY, claim, evidence_of
from scripted_facts import CPU, GPU, LLAMA_8B_PARAMETERS
from tokbench.derive.claims.judge import judge_claims
from tokbench.derive.claims.verdicts import Because, ClaimVerdict, Outcome
from tokbench.derive.evaluate import Results, evaluate
from tokbench.record.run import read_run

SMALL_PARAMETERS = 135_000_000
RULES = ("all(fine / coarse <= 0.85)", "all(fine / coarse >= 0.95)")


class Cells(NamedTuple):
    """Cells of one grain on one device: a step time at each static batch."""

    device: str
    grain: str
    step_s: float
    batches: tuple[int, ...] = (1, 4)


def records(folder: Path, *asked: Cells) -> tuple[Results, ...]:
    """A record for each device; one whose name begins with `CPU` ran a small model."""
    results = []
    for device in dict.fromkeys(one.device for one in asked):
        is_cpu = device.startswith("CPU")
        script = Script(device=(CPU if is_cpu else GPU).model_copy(update={"name": device}))
        for one in asked:
            for rows in one.batches if one.device == device else ():
                parameters = SMALL_PARAMETERS if is_cpu else LLAMA_8B_PARAMETERS
                labels = {"grain": one.grain}
                cell_id = script.cell(mode=one.grain, static_batch=rows, parameters=parameters, labels=labels)
                for index in range(3):
                    step_s = one.step_s * (1 + 0.001 * index)
                    script.trial(cell_id, step_s=step_s, worker=f"worker-{one.grain}-{rows}-{index}")
        name = device.replace(" ", "-")
        script.write(folder / name)
        results.append(evaluate(read_run(folder / name), name))
    return tuple(results)


def timed(grain: str, by: str | None = "static_batch", **select: object) -> dict[str, object]:
    asked: Mapping[str, object] = {"weights": ["pretrained", "random"], "label.grain": grain, **select}
    return {"measured": {"select": asked, "metric": "TPOT", **({} if by is None else {"by": by})}}


def verdict(results: Sequence[Results], coarse: Mapping[str, object] | None = None) -> ClaimVerdict:
    inputs = {"fine": timed("fine"), "coarse": coarse or timed("coarse")}
    row = claim(inputs, *RULES, needs="tokbench run x.yaml")
    (found,) = judge_claims([row], evidence_of(results=tuple(results)), TODAY)
    return found


def devices_in(found: ClaimVerdict) -> set[str]:
    return {source.name.split()[0] for item in found.inputs.values() for source in item.sources}


def test_a_device_that_lacks_an_input_borrows_none(tmp_path: Path) -> None:
    """One GPU's fine steps beside another's coarse ones looked ten times as fast: the devices "disagreed"."""
    one = Cells("GPU one", "fine", 0.01)
    other = (Cells("GPU other", "fine", 0.1), Cells("GPU other", "coarse", 0.1))
    found = verdict(records(tmp_path, one, *other))
    assert (Outcome.REFUTED, Because.RULE) == (found.outcome, found.parts[0].because)
    assert {"GPU-other"} == devices_in(found)


def test_inputs_that_two_devices_made_one_each_are_no_pair(tmp_path: Path) -> None:
    found = verdict(records(tmp_path, Cells("GPU one", "fine", 0.01), Cells("GPU other", "coarse", 0.1)))
    assert (Outcome.UNTESTED, ("tokbench run x.yaml",)) == (found.outcome, found.needs)
    assert any("judged by itself" in text for item in found.inputs.values() for text in item.left_out)


def test_a_small_device_is_judged_by_its_own_where_one_at_scale_lacks_an_input(tmp_path: Path) -> None:
    """Coarse cells that failed on a GPU: its fine steps stood beside the CPU's coarse ones, a hundred times as long."""
    cpu = (Cells("CPU one", "fine", 1.0), Cells("CPU one", "coarse", 1.0))
    found = verdict(records(tmp_path, Cells("GPU one", "fine", 0.01), *cpu))
    assert Outcome.REFUTED is found.outcome
    assert {"CPU-one"} == devices_in(found)


def test_a_single_number_beside_a_series_is_of_the_same_device(tmp_path: Path) -> None:
    slow, fast = (Cells("GPU one", "fine", 0.1), Cells("GPU one", "coarse", 0.1)), Cells("GPU other", "fine", 0.01)
    results = records(tmp_path, *slow, fast, Cells("GPU other", "coarse", 0.01))
    found = verdict(results, timed("coarse", by=None, static_batch=1))
    assert Outcome.REFUTED is found.outcome
    assert 1 == len(devices_in(found))


def test_a_device_that_made_the_series_alone_is_not_said_to_have_run_the_larger_model(tmp_path: Path) -> None:
    small, one_point = Cells("CPU one", "fine", 1.0), Cells("GPU one", "fine", 0.01, (1,))
    found = verdict(records(tmp_path, small, one_point))
    (said,) = found.inputs["fine"].left_out
    assert "CPU one alone made it" in said
