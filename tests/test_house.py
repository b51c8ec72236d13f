"""The house holds: who imports whom, how long a file is, what is loaded when, and that what is named exists."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tokbench.cli import app as command_line
from tokbench.derive.metrics import catalog
from tokbench.record.sweep import read_config

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tokbench"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 350
SOCKETS = ("measure.engines", "measure.meters", "measure.experiments")


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_import_contracts_hold() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_file_is_longer_than_the_house_allows(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_file_says_what_it_is_and_empty_ones_are_empty(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text))
    else:
        assert "__init__.py" == path.name


HEAVY = {"torch", "transformers", "pandas", "matplotlib", "pydantic", "scipy", "numpy", "yaml", "jinja2", "psutil"}


def modules_after(code: str) -> set[str]:
    """Top-level packages that a fresh process has loaded after running the code."""
    program = f"import sys\n{code}\nprint('\\n'.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize(
    "code",
    [
        "import tokbench.cli.app",
        "import contextlib, io, tokbench.cli.app as app\n"
        "sys.argv = ['tokbench', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    assert app.main() == 0",
    ],
    ids=["import", "help"],
)
def test_help_loads_nothing_heavy(code: str) -> None:
    loaded = modules_after(code)
    assert "tokbench" in loaded
    assert set() == loaded & HEAVY


@pytest.mark.parametrize("module", ["tokbench.cli.reporting", "tokbench.cli.running", "tokbench.measure.doctor"])
def test_no_command_loads_torch_into_this_process_by_being_imported(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert set() == loaded & {"torch", "transformers"}


def command_names() -> list[str]:
    group = typer.main.get_command(command_line.app)
    return sorted(group.list_commands(typer.Context(group)))  # type: ignore[attr-defined]


def test_the_commands_are_found() -> None:
    assert {"run", "plan", "report", "doctor", "metrics", "engines", "meters"} <= set(command_names())


@pytest.mark.parametrize("name", command_names())
def test_every_command_stands_in_the_readme(name: str) -> None:
    assert f"tokbench {name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", command_names())
def test_every_command_and_option_says_what_it_does(name: str) -> None:
    command = typer.main.get_command(command_line.app).commands[name]  # type: ignore[attr-defined]
    assert command.help
    assert [] == [option.name for option in command.params if not option.help]


CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_one_and_says_what_it_is_for(path: Path) -> None:
    assert read_config(path).run.name
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_there_are_configs() -> None:
    assert {"smoke.yaml", "fake.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("socket", SOCKETS)
def test_a_socket_lists_its_folder_and_nothing_else(socket: str) -> None:
    module = importlib.import_module(f"tokbench.{socket}")
    folder = SOURCE / socket.replace(".", "/")
    plugs = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    plugs |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert sorted(plugs) == module.names()


def test_every_file_of_metrics_brings_one() -> None:
    files = {path.stem for path in (SOURCE / "derive" / "metrics").glob("*.py") if path.stem != "__init__"}
    assert files == {item.compute.__module__.rpartition(".")[2] for item in catalog().values()}


@pytest.mark.parametrize("socket", ["measure.engines", "measure.meters"])
def test_a_plug_is_called_as_its_file(socket: str) -> None:
    module = importlib.import_module(f"tokbench.{socket}")
    assert module.names() == [module.load_plug(name).DESCRIPTION.kind for name in module.names()]


MAY_CATCH_ALL = {
    "measure/worker.py",
    "measure/sampler.py",
    "cli/metering.py",
    "cli/app.py",
    "cli/report_faults.py",
}
"""The boundaries: an engine's process, a meter's library, whatever reaches the terminal, and a report beside a run."""


def catches_all(node: ast.ExceptHandler) -> bool:
    names = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    return any(name is None or (isinstance(name, ast.Name) and name.id == "Exception") for name in names)


def test_every_exception_is_caught_at_the_boundaries_only() -> None:
    found = {
        relative(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler) and catches_all(node)
    }
    assert MAY_CATCH_ALL == found, "catch the narrowest type (style, 21)"


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "helpers", "common", "base", "manager", "misc"}
    assert [] == [relative(path) for path in FILES if path.stem in drawers]
