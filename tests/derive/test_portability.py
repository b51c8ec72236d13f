"""Frameworks and platforms: what was measured goes before what a page says, and what nobody says is no `no build`."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import Script
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.portability import find_frameworks, find_support, load_builds
from tokbench.derive.report.document import Document
from tokbench.derive.report.frameworks_section import frameworks_sections
from tokbench.derive.report.markdown import render_markdown
from tokbench.errors import DataError
from tokbench.record.observations import IdentityChecked
from tokbench.record.run import read_run

BUILDS = "frameworks:\n" + "".join(
    f"  - {{id: {framework}-{platform}, framework: {framework}, platform: {platform}, is_built: {is_built}, "
    f'note: {note}, read_on: "2026-11-22", source_url: "https://x.org"}}\n'
    for framework, platform, is_built, note in (
        ("jax", "cpu", "true", "n"),
        ("jax", "tpu", "true", "m"),
        ("mlx", "tpu", "false", "k"),
    )
)


def measured(folder: Path, gap: float | None = None) -> Results:
    """JAX on a CPU, three repetitions, with a token that is not the reference's; tinygrad never began."""
    script = Script()
    cell_id = script.cell(labels={"framework": "jax", "platform": "cpu"})
    reference = "the same arithmetic in NumPy"
    checked = IdentityChecked(
        cell_id=cell_id, reference=reference, tokens_compared=32, first_divergence=7, top2_gap=gap
    )
    script.add(checked)
    for _ in range(3):
        script.trial(cell_id)
    script.cell(mode="other", labels={"framework": "tinygrad", "platform": "cpu"})
    script.write(folder)
    return evaluate(read_run(folder), "run")


def test_a_platform_is_run_not_tried_without_a_build_or_not_known(tmp_path: Path) -> None:
    path = tmp_path / "frameworks.yaml"
    path.write_text(BUILDS)
    rows = find_frameworks((measured(tmp_path / "run"),))
    found = {(item.framework, item.platform): (item.seen, item.note) for item in find_support(rows, load_builds(path))}
    assert ("ran", None) == found["jax", "cpu"]
    assert ("not_tried", "m") == found["jax", "tpu"]
    assert ("not_built", "k") == found["mlx", "tpu"]
    assert ("unknown", None) == found["mlx", "cpu"]
    assert ("not_tried", None) == found["tinygrad", "cpu"]
    assert ("unknown", None) == found["tinygrad", "tpu"]


@pytest.mark.parametrize(
    ("gap", "said"), [(0.0125, "7 of 32, then another; logits 0.0125 apart"), (None, "7 of 32, then another")]
)
def test_the_token_that_differs_bears_how_near_the_second_lay(tmp_path: Path, gap: float | None, said: str) -> None:
    text = render_markdown(Document("T", tuple(frameworks_sections((measured(tmp_path, gap),)))))
    assert f"| {said} " in text
    assert "the same arithmetic in NumPy" in text
    assert "not tried" in text and "no build" in text


def test_the_rows_of_the_data_are_whole_and_a_wrong_one_is_refused(tmp_path: Path) -> None:
    builds = load_builds()
    assert len(builds) == len({(build.framework, build.platform) for build in builds})
    assert {"torch", "jax", "mlx", "tinygrad"} == {build.framework for build in builds}
    path = tmp_path / "frameworks.yaml"
    path.write_text(BUILDS.replace("is_built: false", "is_built: perhaps"))
    with pytest.raises(DataError, match="is_built"):
        load_builds(path)
