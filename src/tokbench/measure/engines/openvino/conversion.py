"""The cache of models that were converted for OpenVINO: each once per weights, format and version of the tools.

    CACHE/openvino/KEY/    openvino_model.xml and .bin, tokenizer, config, export.json, tokbench-openvino.json
    CACHE/locks/  CACHE/work/    as for packages: one lock per conversion, unfinished work

Prepared in `work/` and published by a rename: what a killed run leaves is never mistaken for a model.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from tokbench.errors import PlugError
from tokbench.measure.downloads import Report, free_bytes_at, locked, require_disk
from tokbench.measure.engines.openvino.export import EXPORT_FILE, versions
from tokbench.measure.engines.openvino.options import Precision
from tokbench.measure.packages import child_environment, last_line
from tokbench.record.facts import Frozen

MANIFEST_FILE = "tokbench-openvino.json"
READ_BYTES = 32 * 1024 * 1024
"""Files up to this size are read for a fingerprint: a tokenizer has at most some 20 MB, a file of weights more."""
CHILD = "tokbench.measure.engines.openvino.export"


class Exported(Frozen):
    """What the converting child says of its work."""

    parameters: int
    versions: dict[str, str]


class Manifest(Frozen):
    """What a converted folder must still look like when it is used again."""

    source: str
    weight_format: str
    exported: Exported
    files: dict[str, int]
    """Name to size in bytes."""


class Converted(NamedTuple):
    """A model that OpenVINO can load."""

    folder: Path
    manifest: Manifest


Convert = Callable[[Path, Path, Precision, Mapping[str, str]], None]


def convert_in_child(folder: Path, out: Path, precision: Precision, environ: Mapping[str, str]) -> None:
    """Convert `folder` into `out` in a process of its own, so that torch never lies in the one that is measured.

    Raises:
        PlugError: optimum-intel or OpenVINO cannot convert it; its last words.
    """
    command = [sys.executable, "-P", "-m", CHILD, str(folder), str(out), precision.weight_format, *precision.arguments]
    ours = child_environment(environ, out.parent)
    done = subprocess.run(command, env=ours, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PlugError(
            f"OpenVINO cannot load {folder.name}: its conversion by optimum-intel failed (exit {done.returncode}): "
            f"{last_line(done.stderr)}",
            fix="optimum-intel may not know this architecture; use another engine",
        )


def source_fingerprint(folder: Path) -> str:
    """What tells a model from others: name and content of each small file, name, size and time of each large one.

    Small ones are config, tokenizer, index of shards and code; large ones are weights, which are not read, in whichever
    format and however many shards. Folders below and hidden files are no part of a model.
    """
    found = hashlib.sha256()
    for path in model_files(folder):
        state = path.stat()
        if state.st_size <= READ_BYTES:
            told = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            told = f"{state.st_size}\0{state.st_mtime_ns}"
        found.update(f"{path.name}\0{told}\0".encode())
    return found.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files that a conversion can read, by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def problem_with(folder: Path) -> str | None:
    """Say what is wrong with a converted folder, None when it is whole."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        return f"{MANIFEST_FILE}: {type(error).__name__}"
    for name, size in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{name} is missing or has another size than was written"
    return None


def convert_once(
    folder: Path,
    precision: Precision,
    cache: Path,
    environ: Mapping[str, str],
    report: Report = print,
    *,
    convert: Convert = convert_in_child,
) -> Converted:
    """The converted model, converted now where it is not there or not whole.

    Raises:
        PlugError: it cannot be converted, or the disk is too full.
    """
    tools = json.dumps(versions(), sort_keys=True)
    parts = (source_fingerprint(folder), precision.weight_format, *precision.arguments, tools)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    target = cache / "openvino" / key
    with locked(cache / "locks" / f"openvino-{key}.lock", report):
        if problem_with(target) is not None:
            size = sum(path.stat().st_size for path in model_files(folder))
            require_disk(size, free_bytes_at(target), cache)
            report(f"converting {folder} for OpenVINO in {precision.weight_format}, once")
            _publish(folder, precision, target, environ, convert)
    return Converted(target, Manifest.model_validate_json((target / MANIFEST_FILE).read_bytes()))


def _publish(folder: Path, precision: Precision, target: Path, environ: Mapping[str, str], convert: Convert) -> None:
    work_folder = target.parent.parent / "work"
    work_folder.mkdir(parents=True, exist_ok=True)
    for left in work_folder.glob(f"openvino-{target.name}~*"):
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"openvino-{target.name}~", dir=work_folder))
    out = work / "out"
    try:
        convert(folder, out, precision, environ)
        _write_manifest(folder, out, precision)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            os.replace(target, work / "damaged")
        os.replace(out, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_manifest(folder: Path, out: Path, precision: Precision) -> None:
    try:
        exported = Exported.model_validate_json((out / EXPORT_FILE).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise PlugError(f"the conversion left no valid {EXPORT_FILE}: {type(error).__name__}") from error
    files = {path.name: path.stat().st_size for path in sorted(out.iterdir()) if path.is_file()}
    manifest = Manifest(source=str(folder), weight_format=precision.weight_format, exported=exported, files=files)
    (out / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
