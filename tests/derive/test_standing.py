"""Which cells a report speaks of first."""

from __future__ import annotations

from pathlib import Path

from builders import Script
from report_builders import FIGURES, VENDORS
from tokbench.derive.evaluate import evaluate
from tokbench.derive.standing import take_standing


def cells(*layers: int | None) -> Script:
    script = Script()
    for count in layers:
        weights = "pretrained" if count is None else "random"
        cell_id = script.cell(weights=weights, layers=count)  # type: ignore[arg-type]
        for _ in range(3):
            script.trial(cell_id, step_s=0.01 if count is None else 0.001)
    return script


def test_a_model_cut_in_depth_is_no_headline(tmp_path: Path) -> None:
    whole = evaluate(cells(None, 4).run(tmp_path), "run")
    standing = take_standing([whole], FIGURES, VENDORS)
    assert standing.fastest is not None
    assert standing.fastest.record.spec.model.layers is None
    assert all(cell.record.spec.model.layers is None for cell in standing.champions)
    assert all(item.cell.record.spec.model.layers is None for item in standing.beside)


def test_where_nothing_else_ran_a_cut_model_is_spoken_of(tmp_path: Path) -> None:
    cut = evaluate(cells(4).run(tmp_path), "run")
    standing = take_standing([cut], FIGURES, VENDORS)
    assert standing.fastest is not None
    assert standing.fastest.record.spec.model.layers == 4


def test_random_weights_never_hide_a_measured_model(tmp_path: Path) -> None:
    script = Script()
    for weights, step_s in (("pretrained", 0.01), ("random", 0.001)):
        cell_id = script.cell(weights=weights)  # type: ignore[arg-type]
        for _ in range(3):
            script.trial(cell_id, step_s=step_s)
    standing = take_standing([evaluate(script.run(tmp_path), "run")], FIGURES, VENDORS)
    assert standing.fastest is not None and standing.busiest is not None
    spoken_of = [standing.fastest, standing.busiest, *standing.champions, *(item.cell for item in standing.beside)]
    assert {"pretrained"} == {cell.conditions.weights for cell in spoken_of}
