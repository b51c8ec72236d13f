"""What reaches the terminal whatever its encoding is, and a run that is named twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tokbench.cli.app import app
from tokbench.errors import SpecError


@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", "?"), ("utf-8", "…")])
def test_a_terminal_that_lacks_a_letter_gets_the_rest(encoding: str, shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tokbench", "published", "--help"],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert (0, b"") == (done.returncode, done.stderr)
    assert f"ttft_s.p50 {shown}" in done.stdout.decode(encoding)


@pytest.mark.parametrize("command", ["report", "claims"])
def test_a_run_that_is_named_twice_is_refused(command: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    error = CliRunner().invoke(app, [command, str(tmp_path / "run"), f"{tmp_path}/run/../run"]).exception
    assert isinstance(error, SpecError)
    assert "named twice" in error.message
