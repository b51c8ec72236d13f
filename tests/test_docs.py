"""What the documents say is so: links, counts, configs, exit codes, and every key of summary.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from tokbench.cli import app as command_line
from tokbench.derive.claims.rules import load_claims
from tokbench.derive.published.rows import load_published
from tokbench.errors import ExitCode

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
OPEN_SHAPES = {"host", "device", "models", "merged_with", "conditions", "labels", "theirs", "inputs", "steps", "stop"}
"""Keys whose inside is the facts, conditions, row or rule that the document names, not listed there."""
NAMED = {"metrics", "without_disturbed", "repetitions", "ceilings"}
"""Keys whose inside is by name of a metric or dtype: the names are not listed, what they hold is."""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [] == [link for link in links if "://" not in link and not (path.parent / link).exists()]


def test_every_config_stands_in_the_readme() -> None:
    names = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert set() == {name for name in names if name not in README}


def test_the_readme_lists_the_configs_that_claims_name_and_nobody_wrote() -> None:
    commands = [half.needs for claim in load_claims() for half in claim.halves() if half.needs]
    named = {name for command in commands for name in re.findall(r"configs/([\w-]+\.yaml)", command)}
    said = re.search(r"of the configs in these commands (.+?) (?:is|are) not written yet", README, re.DOTALL)
    listed = set(re.findall(r"`([\w-]+\.yaml)`", said.group(1))) if said else set()
    assert {name for name in named if not (ROOT / "configs" / name).exists()} == listed


def test_the_readme_counts_the_published_figures_to_five_percent() -> None:
    found = re.search(r"some (\d+) published figures", README)
    assert found is not None
    assert int(found.group(1)) == pytest.approx(len(load_published()), rel=0.05)


def test_the_readme_has_every_exit_code() -> None:
    cells = re.findall(r"^\| ([\d, ]+) \|", README.partition("## Exit codes")[2].partition("\n## ")[0], re.MULTILINE)
    assert sorted(ExitCode) == sorted(int(code) for cell in cells for code in cell.split(","))


def keys_of(value: object, are_named: bool = False) -> set[str]:
    """Every key inside, but for names of metrics and for what a key of OPEN_SHAPES holds."""
    if isinstance(value, list):
        return {key for item in value for key in keys_of(item)}
    if not isinstance(value, dict):
        return set()
    own = set() if are_named else set(value)
    return own.union(*(keys_of(item, key in NAMED) for key, item in value.items() if key not in OPEN_SHAPES))


@pytest.mark.parametrize("report", ["smoke-cpu", "limit-cpu"])
def test_every_key_of_a_real_summary_is_described(report: str) -> None:
    summary = json.loads((ROOT / "reports" / report / "summary.json").read_text(encoding="utf-8"))
    pages = [ROOT / "docs" / name for name in ("summary-json.md", "design/decision.md")]
    described = {word for page in pages for word in re.findall(r"\w+", page.read_text(encoding="utf-8"))}
    found = keys_of(summary)
    assert {"theirs_range", "sd_between", "first_divergence"} <= found
    assert set() == found - described


PLACEHOLDERS = {"COMMAND", "--help"}
"""What may stand in place of a command."""


def commands_in(text: str) -> list[tuple[str, list[str]]]:
    """Every command that a code span or a line of a code block shows, with its options."""
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    spans = re.findall(r"`(tokbench [^`]+)`", text)
    shown = [*spans, *re.findall(r"^\s*(tokbench [^#\n`]+)", blocks, re.MULTILINE)]
    split = [line.split() for line in shown]
    return [(words[1], [word.partition("=")[0] for word in words[2:] if word.startswith("--")]) for words in split]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_can_be_typed(path: Path) -> None:
    commands = typer.main.get_command(command_line.app).commands  # type: ignore[attr-defined]
    options = {name: {opt for item in command.params for opt in item.opts} for name, command in commands.items()}
    found = commands_in(path.read_text(encoding="utf-8"))
    wrong = [(name, used) for name, used in found if name not in options or not set(used) <= options[name] | {"--help"}]
    assert [] == [(name, used) for name, used in wrong if name not in PLACEHOLDERS]


def test_the_commands_of_the_readme_are_seen() -> None:
    assert ("compare", ["--fail-on", "--fail-on", "--markdown"]) in commands_in(README)
