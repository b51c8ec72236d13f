"""Added nats by chunk: by hand, paired, undefined where there is nothing to set them beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from quality_builders import Lab, estimate_of, reason_of
from scripted_facts import CPU, GPU
from tokbench.stats import t_quantile


def test_the_loss_is_the_plain_mean_over_chunks_with_an_interval_over_chunks(tmp_path: Path) -> None:
    lab = Lab()
    reference, narrow = lab.cell(), lab.cell("int4")
    lab.read(reference, [9.0, 12.0, 6.0])  # 3, 4, 2 nats a token
    lab.read(narrow, [9.3, 12.6, 5.7])  # 3.1, 4.2, 1.9
    found = lab.results(tmp_path)
    value = estimate_of(found[narrow])

    assert pytest.approx((0.1 + 0.2 - 0.1) / 3) == value.value
    deviation = (((0.1 - 0.2 / 3) ** 2 + (0.2 - 0.2 / 3) ** 2 + (-0.1 - 0.2 / 3) ** 2) / 2) ** 0.5
    assert value.high == pytest.approx(value.value + t_quantile(0.975, 2) * deviation / 3**0.5)
    assert (3, "mean") == (value.n, value.statistic)


def test_positive_losses_are_not_averaged_by_logarithms(tmp_path: Path) -> None:
    lab = Lab()
    reference, narrow = lab.cell(), lab.cell("int4")
    lab.read(reference, [3.0, 3.0])
    lab.read(narrow, [3.3, 12.0])  # 0.1 and 3: a geometric mean would say 0.55
    assert estimate_of(lab.results(tmp_path)[narrow], "added_nll_nats").value == pytest.approx(1.55)


def test_chunks_are_paired_by_their_place_and_not_by_their_order(tmp_path: Path) -> None:
    lab = Lab()
    reference, narrow = lab.cell(), lab.cell("fp8")
    lab.read(reference, [3.0, 30.0, 300.0])
    lab.read(narrow, [300.3, 30.3, 3.3], order=[2, 1, 0])
    value = estimate_of(lab.results(tmp_path)[narrow])

    assert value.low == pytest.approx(0.1) == value.high


def test_repetitions_of_a_chunk_are_averaged_and_are_no_more_chunks(tmp_path: Path) -> None:
    lab = Lab()
    reference, narrow = lab.cell(), lab.cell("int8")
    for nats in (3.0, 3.0):
        lab.read(reference, [nats, nats])
    for nats in (3.0, 3.6):
        lab.read(narrow, [nats, nats])
    value = estimate_of(lab.results(tmp_path)[narrow])
    assert (pytest.approx(0.1), 2) == (value.value, value.n)


def test_the_reference_is_what_quantised_weights_are_computed_with(tmp_path: Path) -> None:
    found = {}
    for name, device in (("gpu", GPU), ("cpu", CPU)):
        lab = Lab(device)
        wide, half, narrow = lab.cell("float32"), lab.cell("bfloat16"), lab.cell("int8")
        for cell_id, nats in ((wide, 3.0), (half, 6.0), (narrow, 12.0)):
            lab.read(cell_id, [nats, nats])
        cells = lab.results(tmp_path / name)
        found[name] = cells[narrow], cells[wide if name == "cpu" else half]
    assert [2.0, 3.0] == [pytest.approx(estimate_of(found[name][0]).value) for name in ("gpu", "cpu")]
    assert all("set beside" in reason_of(reference) for _, reference in found.values())


def test_else_it_is_the_native_type_and_else_the_widest(tmp_path: Path) -> None:
    for native, added in (("float16", 1.0), ("q4_1", 2.0)):
        lab = Lab()
        labels = {"native_dtype": native}
        wide, half, narrow = lab.cell("float32"), lab.cell("float16"), lab.cell("int8", labels=labels)
        for cell_id, nats in ((wide, 3.0), (half, 6.0), (narrow, 9.0)):
            lab.read(cell_id, [nats, nats])
        assert estimate_of(lab.results(tmp_path / native)[narrow]).value == pytest.approx(added)


def test_without_a_reference_or_with_other_chunks_there_is_no_loss(tmp_path: Path) -> None:
    lab = Lab()
    narrow, plain = lab.cell("int4"), lab.cell("bfloat16", experiment="none")
    lab.read(narrow, [3.0, 3.0])
    lab.trial(plain, [])
    found = lab.results(tmp_path / "alone")
    assert "the run has no cell of the same weights unquantised" == reason_of(found[narrow], "added_nll_nats")
    assert "the cell has no experiment nll" == reason_of(found[plain])

    lab = Lab()
    reference, narrow = lab.cell(), lab.cell("int4")
    lab.read(reference, [3.0, 3.0])
    lab.read(narrow, [3.0, 3.0], order=[1, 2])
    assert "did not read the same chunks" in reason_of(lab.results(tmp_path / "other")[narrow])
