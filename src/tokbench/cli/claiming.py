"""`tokbench claims`: the verdict on every claim, from published rows and the records that are given."""

from __future__ import annotations

import datetime
import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from tokbench.cli.reporting import load_results, refuse_twice
from tokbench.derive.claims.evidence import load_evidence
from tokbench.derive.claims.explain import explain
from tokbench.derive.claims.judge import judge_claims
from tokbench.derive.claims.plain import dump_claims
from tokbench.derive.claims.rows import ClaimRow
from tokbench.derive.claims.rules import load_claims
from tokbench.derive.claims.saying import say_because, say_bilingual
from tokbench.derive.claims.verdicts import ClaimVerdict
from tokbench.derive.evaluate import Results
from tokbench.derive.published.rows import PublishedFigure, load_published
from tokbench.derive.report.claims_drawn import draw_claimed_drafts, draw_claimed_experts
from tokbench.derive.report.claims_figures import draw_family
from tokbench.derive.report.claims_page import DRAFTS, FAMILIES, MIXTURES, Found, claims_document
from tokbench.derive.report.write import write_page, write_whole
from tokbench.derive.scenarios import find_scenarios
from tokbench.derive.words import ENGLISH, in_language
from tokbench.errors import SpecError

CLAIMS_FILE = "claims.json"
COLUMNS = ("claim", "topic", "verdict", "evidence", "because")


class AskedClaims(NamedTuple):
    """Which claims are asked for, and from where."""

    topic: str | None = None
    name: str | None = None
    """One claim, to be explained."""
    file: Path | None = None
    """Claims of the user's own, in place of ours."""
    published: Path | None = None


def write_claims(runs: Sequence[Path], asked: AskedClaims, out: Path, language: str) -> tuple[Path, Path]:
    """Write the page of the claims that are asked for: report.md, report.html, claims.json and figures.

    Raises:
        SpecError: as `show_claims`, or nobody wrote the language. RecordError: a record cannot be read, or a file not
            written. DataError: a row is wrong.
    """
    with in_language(language):  # refused before anything is read
        refuse_twice(runs)
        results, figures = load_results(runs), load_published(asked.published)
        verdicts = _judge(results, figures, asked)
        scenarios = find_scenarios(results, figures)
        own = {topic: [found for found in verdicts if found.claim.topic == topic] for topic in FAMILIES}
        drawn = {topic: draw_family(topic, members) for topic, members in own.items()}
        drawn[MIXTURES] = (*draw_claimed_experts(results), *drawn[MIXTURES])
        drawn[DRAFTS] = (*drawn[DRAFTS], *draw_claimed_drafts(results, figures))
        document = claims_document(verdicts, Found(drawn, scenarios, results))
    with in_language(ENGLISH):
        plain = dump_claims(_judge(results, figures, asked))
    paths = write_page(document, [item for members in drawn.values() for item in members], out)
    write_whole(out / CLAIMS_FILE, plain.encode())
    return paths


def show_claims(runs: Sequence[Path], asked: AskedClaims, *, as_json: bool) -> None:
    """Judge the claims that are asked for and print the verdicts.

    Raises:
        SpecError: no claim has that topic or id, or a run is named twice. RecordError: a record cannot be read.
        DataError: a row is wrong.
    """
    refuse_twice(runs)
    verdicts = judge_asked(runs, asked)
    if as_json:
        typer.echo(dump_claims(verdicts), nl=False)
    elif asked.name is not None:
        for verdict in verdicts:
            _print_tree(verdict)
    else:
        _print_table(verdicts)


def judge_asked(runs: Sequence[Path], asked: AskedClaims) -> tuple[ClaimVerdict, ...]:
    """The verdicts on the claims that are asked for, as of today.

    Raises:
        SpecError, RecordError, DataError: as `show_claims`.
    """
    return _judge(load_results(runs), load_published(asked.published), asked)


def _judge(
    results: Sequence[Results], figures: Sequence[PublishedFigure], asked: AskedClaims
) -> tuple[ClaimVerdict, ...]:
    claims = _choose(load_claims(None if asked.file is None else {str(asked.file): asked.file}), asked)
    return judge_claims(claims, load_evidence(results, figures), datetime.datetime.now(datetime.UTC).date())


def _choose(claims: Sequence[ClaimRow], asked: AskedClaims) -> list[ClaimRow]:
    if asked.topic is not None:
        _refuse_unknown("topic", "--only", asked.topic, [claim.topic for claim in claims])
    if asked.name is not None:
        _refuse_unknown("claim", "--explain", asked.name, [claim.id for claim in claims])
    chosen = [c for c in claims if asked.topic in (None, c.topic) and asked.name in (None, c.id)]
    if claims and not chosen:
        message = f"the claim {asked.name!r} is not of the topic {asked.topic!r}"
        raise SpecError(message, key="--only", fix=f"tokbench claims --explain {asked.name}")
    return chosen


def _refuse_unknown(what: str, key: str, wanted: str, names: Sequence[str]) -> None:
    known = sorted(set(names))
    if wanted in known or not known:
        return
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.6) or known
    raise SpecError(f"no such {what}: {wanted!r}", key=key, fix=f"use one of: {', '.join(near)}")


def _print_tree(verdict: ClaimVerdict) -> None:
    for line in explain(verdict):
        place = f"  {line.url}" if line.url else ""
        typer.echo(f"{'  ' * line.depth}{line.text}{place}")


def _print_table(verdicts: Sequence[ClaimVerdict]) -> None:
    rows = [_fields(verdict) for verdict in verdicts]
    console = Console(markup=False)
    if console.is_terminal:
        table = Table(title=f"{len(verdicts)} claims")
        for column in COLUMNS:
            table.add_column(column, overflow="fold", no_wrap=column == "verdict")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in (COLUMNS, *rows):
            typer.echo("\t".join(row))
    counts = Counter(verdict.outcome.value for verdict in verdicts)
    tests = sum(len(verdict.parts) for verdict in verdicts)
    said = ", ".join(f"{number} {outcome}" for outcome, number in counts.most_common())
    typer.echo(f"claims: {len(verdicts)}, tests: {tests}: {said}")
    for command in dict.fromkeys(command for verdict in verdicts for command in verdict.needs):
        untested = [verdict.claim.id for verdict in verdicts if command in verdict.needs]
        typer.echo(f"to test {', '.join(untested)}: {command}{_say_absent(command)}")
        parts = [part for verdict in verdicts for part in verdict.parts if part.needs == command]
        for takes in dict.fromkeys(say_bilingual(part.takes) for part in parts if part.takes is not None):
            typer.echo(f"  it takes: {takes}")


def _say_absent(command: str) -> str:
    """Which configs of a command are not there, seen from the working folder: a command that cannot run says so."""
    absent = [word for word in command.split() if word.endswith(".yaml") and not Path(word).exists()]
    return f"  (not here: {', '.join(absent)})" if absent else ""


def _fields(verdict: ClaimVerdict) -> tuple[str, ...]:
    claim = verdict.claim
    because = [say_because(part.because) for part in verdict.parts]
    if len(verdict.parts) > 1:
        named = zip(verdict.parts, because, strict=True)
        because = [f"{part.half.name} {part.outcome.value}: {text}" for part, text in named]
    strength = "-" if verdict.strength is None else verdict.strength.value
    evidence = ", ".join([strength, *verdict.labels])
    return (claim.id, claim.topic, verdict.outcome.value, evidence, "; ".join(because))
