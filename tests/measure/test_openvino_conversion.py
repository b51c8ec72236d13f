"""Conversions for OpenVINO: each once, whole or not at all, and made anew where weights or tools are others."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tokbench.errors import PlugError
from tokbench.measure.engines.openvino import conversion, reference
from tokbench.measure.engines.openvino.conversion import convert_once, problem_with
from tokbench.measure.engines.openvino.export import EXPORT_FILE
from tokbench.measure.engines.openvino.options import PRECISIONS, Precision

FLOAT32 = PRECISIONS["float32"]


class Converter:
    """Writes a conversion, or fails half-way."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.formats: list[str] = []

    def __call__(self, folder: Path, out: Path, precision: Precision, environ: Mapping[str, str]) -> None:
        self.formats.append(precision.weight_format)
        out.mkdir()
        (out / "openvino_model.bin").write_text("weights")
        if self.fails:
            raise PlugError("no such architecture")
        (out / EXPORT_FILE).write_text(json.dumps({"parameters": 3, "versions": {"nncf": "1"}}))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conversion, "versions", lambda: {"openvino": "1"})
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("x" * 10)
    return folder


def made_by(converter: Converter, weights: Path, precision: Precision = FLOAT32) -> conversion.Converted:
    cache = weights.parent / "cache"
    return convert_once(weights, precision, cache, {}, lambda line: None, convert=converter)


def test_a_conversion_is_used_again(weights: Path) -> None:
    converter = Converter()
    first, second = made_by(converter, weights), made_by(converter, weights)
    assert first == second
    assert ["fp32"] == converter.formats
    assert 3 == first.manifest.exported.parameters
    assert first.folder.is_relative_to(weights.parent / "cache" / "openvino")


def test_another_format_other_weights_and_other_tools_are_other_conversions(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = Converter()
    folders = [made_by(converter, weights).folder, made_by(converter, weights, PRECISIONS["int8"]).folder]
    (weights / "model.safetensors").write_text("y" * 10)
    folders.append(made_by(converter, weights).folder)
    monkeypatch.setattr(conversion, "versions", lambda: {"openvino": "2"})
    folders.append(made_by(converter, weights).folder)
    assert ["fp32", "int8", "fp32", "fp32"] == converter.formats
    assert 4 == len(set(folders))


def test_a_damaged_conversion_is_made_anew(weights: Path) -> None:
    converter = Converter()
    folder = made_by(converter, weights).folder
    (folder / "openvino_model.bin").write_text("half")
    assert "openvino_model.bin" in (problem_with(folder) or "")
    assert problem_with(made_by(converter, weights).folder) is None
    assert 2 == len(converter.formats)


def test_a_failed_conversion_leaves_nothing(weights: Path) -> None:
    with pytest.raises(PlugError, match="no such architecture"):
        made_by(Converter(fails=True), weights)
    cache = weights.parent / "cache"
    assert [] == [path for folder in ("openvino", "work") for path in (cache / folder).glob("*")]


def test_why_a_model_cannot_be_converted_is_said(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert command[-3:] == [str(weights), str(weights.parent / "out"), "fp32"]
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nValueError: Trying to export a foo model\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(PlugError, match=r"cannot load weights: .*Trying to export a foo model"):
        conversion.convert_in_child(weights, weights.parent / "out", FLOAT32, {})


def test_the_reference_is_the_childs_answer(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(command: list[str], input: str, **_: Any) -> subprocess.CompletedProcess[str]:
        assert json.loads(input) == {"prompts": [[1, 2]], "answers": [[3, 4]]}
        said = json.dumps({"first_divergence": 1, "top2_gap": 0.5, "version": "5.5.4"})
        return subprocess.CompletedProcess(command, 0, f"a warning\n{said}\n", "")

    monkeypatch.setattr(subprocess, "run", answer)
    found = reference.compare_with_transformers(weights, [(1, 2)], [[3, 4]])
    assert (2, 1, 0.5) == found[1:]
    assert "transformers 5.5.4" in found.reference


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "model-00002-of-00002.safetensors", "pytorch_model.bin", "chat_template.jinja"],
)
def test_whatever_a_conversion_reads_is_in_the_fingerprint(weights: Path, name: str) -> None:
    """In whichever format the weights are, and in how many shards; small files by content, not by time."""
    for file in (name, "model-00001-of-00002.safetensors"):
        (weights / file).write_text("before")
    before = conversion.source_fingerprint(weights)
    os.utime(weights / name, ns=(1, 1))
    assert before == conversion.source_fingerprint(weights)
    (weights / name).write_text("behind")
    assert before != conversion.source_fingerprint(weights)
    (weights / name).unlink()
    assert before != conversion.source_fingerprint(weights)


def test_large_files_are_not_read_for_a_fingerprint(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "READ_BYTES", 9)
    before = conversion.source_fingerprint(weights)
    state = (weights / "model.safetensors").stat()
    (weights / "model.safetensors").write_text("y" * 10)
    os.utime(weights / "model.safetensors", ns=(state.st_mtime_ns, state.st_mtime_ns))
    assert before == conversion.source_fingerprint(weights)
    os.utime(weights / "model.safetensors", ns=(1, 1))
    assert before != conversion.source_fingerprint(weights)
