"""The scripts, the CI entry and the packaging say what the README promises; nothing here installs or measures."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path
    for path in (ROOT / "scripts").iterdir()
    if path.is_file() and path.read_bytes().startswith(b"#!/usr/bin/env bash")
)
SHELL_FILES = [*SCRIPTS, ROOT / ".ci" / "run"]


def project() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~\[ ]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pins}


def test_the_scripts_that_the_readme_names_are_there() -> None:
    names = {path.name for path in SCRIPTS}
    assert {"setup", "demo", "test", "gpu_check.sh", "fetch_gpu_wheels"} <= names


@pytest.mark.parametrize("script", SHELL_FILES, ids=lambda path: path.name)
def test_script_parses_and_can_be_executed(script: Path) -> None:
    parsed = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert parsed.stderr == ""
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SHELL_FILES, ids=lambda path: path.name)
def test_script_names_no_registry_host(script: Path) -> None:
    assert re.findall(r"https?://[^\s)\"']+", script.read_text(encoding="utf-8")) == []


def test_ci_runs_what_a_developer_runs() -> None:
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert last == "exec scripts/test </dev/null"


def test_test_script_runs_every_check_in_order() -> None:
    text = (ROOT / "scripts" / "test").read_text(encoding="utf-8")
    assert re.findall(r"^step (\"[^\"]+\"|\S+)", text, flags=re.MULTILINE) == [
        '"ruff format"',
        '"ruff check"',
        "mypy",
        "lint-imports",
        "pytest",
    ]


def test_base_install_needs_no_torch() -> None:
    dependencies = project()["dependencies"]
    assert isinstance(dependencies, list)
    assert requirement_names(dependencies).isdisjoint({"torch", "transformers", "accelerate", "gguf"})


def test_local_extra_declares_ranges() -> None:
    extras = project()["optional-dependencies"]
    assert isinstance(extras, dict)
    assert {"torch", "transformers"} <= requirement_names(extras["local"])
    assert [requirement for requirement in extras["local"] if not re.search(r">=", requirement)] == []
    assert [requirement for requirement in extras["local"] if re.search(r"==|~=|<", requirement)] == []


def test_constraints_pin_torch_without_a_build() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", constraints()["torch"])


def test_every_requirement_has_an_exact_version_for_ci() -> None:
    declared = project()
    extras = declared["optional-dependencies"]
    base = declared["dependencies"]
    assert isinstance(extras, dict)
    assert isinstance(base, list)
    wanted = requirement_names([*base, *extras["local"], *extras["quant"], *extras["dev"]])
    assert {name.replace("_", "-") for name in wanted} - set(constraints()) == set()


def test_setup_refuses_an_unknown_argument() -> None:
    called = subprocess.run([ROOT / "scripts" / "setup", "--everything"], capture_output=True, text=True, check=False)
    assert called.returncode == 1
    assert "--system-torch" in called.stderr


def test_workflow_explains_every_exit_code() -> None:
    text = (ROOT / "docs" / "ci-workflow.yml").read_text(encoding="utf-8")
    explained = re.findall(r"^#\s+(\d+)\s+(?:no|yes)\b", text, flags=re.MULTILINE)
    assert explained == ["0", "1", "2", "3", "4", "5", "6", "7", "130", "143"]
    assert set(yaml.safe_load(text)["jobs"]) == {"smoke"}


@pytest.mark.parametrize("ignored", ["/.venv/", "/runs/", "/.whl/", "/.peers/"])
def test_git_ignores_what_the_scripts_make(ignored: str) -> None:
    assert ignored in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
