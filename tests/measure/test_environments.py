"""Engines in interpreters of their own: where they are looked for, what is said of what they lack, who is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tokbench.cli import listing, running
from tokbench.errors import PlugError
from tokbench.measure import engines, environments
from tokbench.measure.environments import find_environment
from tokbench.measure.handover import safe_environment
from tokbench.measure.messages import CloseGroup, Done, WarmUp
from tokbench.measure.worker_process import ProcessWorker
from tokbench.record.spec import CellSpec, EngineSpec, ModelSpec
from tokbench.record.sweep import make_cell

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "scripts" / "peers.d").glob("*.sh"))
ABSENT = "tokbench-no-such-package"
WORKER = {"tokbench": "0.1.0", "pydantic": "2.9", "psutil": "5.9"}
"""What a worker imports in whichever interpreter."""


def make_environment(folder: Path, **packages: str) -> Path:
    """A real interpreter whose distributions are no more than their metadata."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name, version in packages.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of environments: one that is complete, one that lacks the engine, one without tokbench."""
    folder = tmp_path_factory.mktemp("peers")
    make_environment(folder / "whole", engine="9.9", **WORKER)
    make_environment(folder / "empty", **WORKER)
    make_environment(folder / "alone", engine="9.9")
    return folder


def test_an_engine_that_is_installed_here_stays_here(peers: Path) -> None:
    found = find_environment(EngineSpec(kind="whole"), ("pydantic",), {environments.VARIABLE: str(peers)})
    assert Path(sys.executable) == found.python
    assert not found.is_own
    assert [] == found.missing


def test_an_engine_that_is_not_is_found_in_the_folder_of_its_name(peers: Path) -> None:
    found = find_environment(EngineSpec(kind="whole"), ("engine",), {environments.VARIABLE: str(peers)})
    assert peers / "whole" / "bin" / "python" == found.python
    assert found.is_own
    assert {"engine": "9.9", **WORKER} == found.versions


def test_without_the_variable_the_folder_stands_beside_the_current_one(peers: Path, tmp_path: Path) -> None:
    (tmp_path / ".peers").symlink_to(peers)
    found = find_environment(EngineSpec(kind="whole"), ("engine",), {}, tmp_path)
    assert tmp_path / ".peers" / "whole" / "bin" / "python" == found.python


def test_the_config_goes_before_everything_else(peers: Path) -> None:
    python = peers / "whole" / "bin" / "python"
    found = find_environment(EngineSpec(kind="whole", python=str(python)), ("rich",), {})
    assert python == found.python
    assert ["rich"] == found.missing


def test_an_interpreter_that_cannot_be_asked_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "python"
    with pytest.raises(PlugError, match="no Python that can be asked") as refused:
        find_environment(EngineSpec(kind="whole", python=str(absent)), ("engine",))
    assert str(absent) in refused.value.message
    assert "scripts/peers" in str(refused.value.fix)


def test_an_environment_without_tokbench_cannot_hold_a_worker(peers: Path) -> None:
    found = find_environment(EngineSpec(kind="alone"), ("engine",), {environments.VARIABLE: str(peers)})
    assert [*WORKER] == found.missing


def test_an_environment_that_cannot_hold_a_worker_is_refused_with_the_recipe_that_builds_it(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "vllm", **dict.fromkeys(engines.load_plug("vllm").DESCRIPTION.packages, "1"))
    with pytest.raises(PlugError) as refused:
        engines.check_plug(EngineSpec(kind="vllm", python=str(python)))
    assert f"engine 'vllm' needs tokbench, pydantic, psutil, not installed in {python}" == refused.value.message
    by_hand = f"{python} -m pip install pydantic psutil and {python} -m pip install --no-deps -e . "
    assert f"scripts/peers vllm, or {by_hand}(in tokbench's checkout)" == refused.value.fix


def test_a_recipe_that_would_find_nothing_to_do_is_not_advised_as_it_is(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "vllm", **WORKER)
    (tmp_path / "vllm" / environments.STAMP).touch()
    with pytest.raises(PlugError) as refused:
        engines.check_plug(EngineSpec(kind="vllm", python=str(python)))
    assert str(refused.value.fix).startswith(f"scripts/peers vllm once {tmp_path}/vllm/.tokbench-peer is removed, or ")


@pytest.fixture
def vllm_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's plug, needing a package that no interpreter has."""
    import dataclasses

    plug = engines.load_plug("vllm")
    monkeypatch.setattr(plug, "DESCRIPTION", dataclasses.replace(plug.DESCRIPTION, packages=(ABSENT,)))


def test_a_missing_engine_names_its_extra_and_its_recipe(
    vllm_packages: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path))
    with pytest.raises(PlugError, match=f"needs {ABSENT}, not installed here") as refused:
        engines.check_plug(EngineSpec(kind="vllm"))
    assert "pip install 'tokbench[vllm]', or scripts/peers vllm (an environment of its own)" == refused.value.fix


def test_an_environment_that_lacks_the_engine_is_named(
    vllm_packages: None, monkeypatch: pytest.MonkeyPatch, peers: Path
) -> None:
    python = peers / "empty" / "bin" / "python"
    with pytest.raises(PlugError, match=f"needs {ABSENT}, not installed in {python}") as refused:
        engines.check_plug(EngineSpec(kind="vllm", python=str(python)))
    assert f"scripts/peers vllm, or {python} -m pip install {ABSENT}" == refused.value.fix


def test_the_list_of_engines_says_where_each_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "vllm", vllm="9.9", **WORKER)
    monkeypatch.setenv(environments.VARIABLE, str(tmp_path))
    listing.show_engines(as_json=False)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vllm\t"))
    assert line.endswith(f"\tvllm 9.9 in {python}")


def test_the_interpreter_is_no_part_of_a_cell_that_does_not_name_one() -> None:
    model = ModelSpec(source="shape:tiny-llama", weights="random")
    plain = make_cell(CellSpec(model=model, engine=EngineSpec(kind="vllm")))
    named = make_cell(CellSpec(model=model, engine=EngineSpec(kind="vllm", python="/somewhere/python")))
    assert "python" not in plain.resolved_json()
    assert plain.cell_id != named.cell_id


def test_a_worker_runs_in_the_interpreter_that_it_is_given(tmp_path: Path) -> None:
    python = make_environment(tmp_path / "own")
    site = next((tmp_path / "own").glob("lib/python*/site-packages"))
    others = [str(ROOT / "src"), *(path for path in sys.path if path.endswith("-packages"))]
    (site / "here.pth").write_text("\n".join(others) + "\n")
    worker = ProcessWorker(tmp_path / "worker.log", safe_environment(os.environ), 1, python)
    try:
        assert ["failed"] == [reply.message for reply in worker.ask(WarmUp(trial_id="t", tolerance=0.1, cap_s=1), 60.0)]
        assert str(python) == psutil.Process(worker._process.pid).cmdline()[0]
        assert [Done()] == list(worker.ask(CloseGroup(), 60.0))
    finally:
        worker.close()


def test_a_run_opens_each_group_in_the_interpreter_of_its_engine(
    monkeypatch: pytest.MonkeyPatch, peers: Path, tmp_path: Path
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(running, "ProcessWorker", lambda *arguments: opened.append(arguments))
    plan = SimpleNamespace(host=SimpleNamespace(usable_cores=2))
    job = running._Job(None, plan, tmp_path, None)  # type: ignore[arg-type]
    python = peers / "whole" / "bin" / "python"
    for engine in (EngineSpec(kind="fake"), EngineSpec(kind="fake", python=str(python))):
        running._worker_opener(job)(SimpleNamespace(spec=SimpleNamespace(engine=engine)))  # type: ignore[arg-type]
    assert [Path(sys.executable), python] == [arguments[3] for arguments in opened]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_a_recipe_parses_and_says_what_it_builds_at_what_cost(recipe: Path) -> None:
    assert "" == subprocess.run(["bash", "-n", str(recipe)], capture_output=True, text=True, check=False).stderr
    heads = {line.partition(": ")[0] for line in recipe.read_text(encoding="utf-8").splitlines()}
    assert {"# what", "# cost"} <= heads


def test_every_engine_that_lives_apart_has_a_recipe() -> None:
    apart = {item.kind for item in engines.describe() if item.lives_apart}
    assert "vllm" in apart
    assert apart <= {recipe.stem for recipe in RECIPES}


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """`scripts/peers` with two recipes: one works, one does not."""
    recipes = tmp_path / "scripts" / "peers.d"
    recipes.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "peers", tmp_path / "scripts")
    shutil.copy(ROOT / "scripts" / "peers.d" / "steps.bash", recipes)
    head = "# what: a thing\n# cost: nothing, at once\nset -euo pipefail\n"
    (recipes / "good.sh").write_text(f'{head}echo working\ntouch "$1/made"\necho "thing 1.0"\n')
    (recipes / "bad.sh").write_text(f"{head}exit 7\n")
    return tmp_path


def build(
    workshop: Path, *arguments: str, here: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    command = [str(workshop / "scripts" / "peers"), *arguments]
    environ = {**os.environ, "PYTHON": sys.executable, environments.VARIABLE: str(workshop / "out"), **changes}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=here or workshop)


def test_peers_builds_once_and_again_when_the_recipe_changes(workshop: Path) -> None:
    first = build(workshop, "good")
    assert 0 == first.returncode
    assert "takes nothing, at once" in first.stdout
    assert first.stdout.splitlines()[-1].endswith(": thing 1.0")
    assert (workshop / "out" / "good" / "made").is_file()
    (workshop / "out" / "good" / "made").unlink()
    assert f"good: up to date in {workshop}/out/good: thing 1.0" in build(workshop, "good").stdout
    assert not (workshop / "out" / "good" / "made").exists()
    with (workshop / "scripts" / "peers.d" / "good.sh").open("a") as recipe:
        recipe.write('echo "thing 2.0"\n')
    assert build(workshop, "good").stdout.splitlines()[-1].endswith(": thing 2.0")


def test_one_recipe_that_fails_does_not_keep_the_next_from_being_built(workshop: Path) -> None:
    done = build(workshop, "bad", "good", "--into", str(workshop / "there"))
    assert 1 == done.returncode
    last = done.stdout.splitlines()[-2:]
    assert "bad: NOT BUILT" in last[0]
    assert "exit code 7" in last[0]
    assert f"good: built in {workshop}/there/good" in last[1]


def test_peers_without_a_name_lists_and_builds_nothing(workshop: Path) -> None:
    done = build(workshop)
    assert "good: a thing (nothing, at once); not built" in done.stdout
    assert not (workshop / "out" / "good").exists()


def test_peers_refuses_a_name_that_it_does_not_know(workshop: Path) -> None:
    done = build(workshop, "better")
    assert 2 == done.returncode
    assert "there is no recipe 'better'; there are: bad good" in done.stderr


def test_relative_folders_are_taken_from_where_the_caller_stands(workshop: Path, tmp_path: Path) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    (here / "python").symlink_to(sys.executable)
    assert f"good: built in {here}/mine/good" in build(workshop, "good", "--into", "mine", here=here).stdout
    assert (here / "mine" / "good" / "made").is_file()
    named = build(workshop, "good", here=here, **{environments.VARIABLE: "named", "PYTHON": "./python"})
    assert f"good: built in {here}/named/good" in named.stdout
    by_default = build(workshop, "good", here=here, **{environments.VARIABLE: ""})
    assert f"good: built in {workshop}/.peers/good" in by_default.stdout
    assert 2 == build(workshop, "good", "--into").returncode
