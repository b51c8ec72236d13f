"""Commands on data files and finished records: published, fit, check, compare. Each imports what it needs itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file to the command line."""
    app.command()(published)
    app.command()(fit)
    app.command()(check)
    app.command()(compare)


def published(
    vendors: Annotated[list[str] | None, typer.Option("--vendor", help="Only of this vendor; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model, e.g. gpt-oss-120b or llama-3.1.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only of this metric, e.g. decode_tokens_per_s.")] = None,
    since: Annotated[str | None, typer.Option(help="Published then or later: YYYY, YYYY-MM or YYYY-MM-DD.")] = None,
    folder: Annotated[Path | None, typer.Option("--published", help="A folder with figures of your own.")] = None,
    check_rows: Annotated[bool, typer.Option("--check", help="Check every row instead, and count per vendor.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every field.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what vendors publish, newest first, with value, date, who measured it, and where it was read."""
    from tokbench.cli import quoting
    from tokbench.derive.selection import Selection
    from tokbench.errors import SpecError

    if as_csv and as_json:
        raise SpecError("--csv and --json are two forms of one answer", fix="leave one out")
    if check_rows:
        if vendors or model or metric or since or as_csv or as_json:
            raise SpecError("--check looks at every row", fix="tokbench published --check [--published DIR]")
        quoting.show_published_check(folder)
        return
    asked = Selection(tuple(vendors or ()), model, metric, since)
    quoting.show_published(asked, folder, "csv" if as_csv else "json" if as_json else "table")


def fit(
    model: Annotated[str, typer.Argument(help="A model of data/models.yaml, e.g. DeepSeek-V3.")],
    device: Annotated[str, typer.Argument(help="A device of data/devices.yaml, e.g. 'RTX 4090'.")],
    count: Annotated[int, typer.Option(help="So many devices.")] = 1,
    dtypes: Annotated[list[str] | None, typer.Option("--dtype", help="Only this dtype; may be repeated.")] = None,
    users: Annotated[int, typer.Option(help="Users served at once.")] = 1,
    context: Annotated[int, typer.Option(help="Tokens of context that each user fills.")] = 4096,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a model fits on devices, what it would take, and the roofline. Arithmetic on datasheets alone."""
    from tokbench.cli import fitting
    from tokbench.derive.fit import Demand

    fitting.show_fit(model, device, count, tuple(dtypes or ()), Demand(users, context), as_json=as_json)


def check(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    as_json: JsonOption = False,
) -> None:
    """Judge every cell of a record: valid, suspect or invalid, why, and what to do. Exit 1 unless all are valid."""
    from tokbench.cli import checking

    raise typer.Exit(int(checking.show_check(run, as_json=as_json)))


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The baseline: a run folder, or pytest-benchmark's JSON.")],
    b: Annotated[Path | None, typer.Argument(metavar="B", help="What is set beside it, of the same kind.")] = None,
    by: Annotated[
        str | None, typer.Option(metavar="KEY=X,Y", help="Instead of B: cells of A, by engine.mode=eager,compiled.")
    ] = None,
    metrics: Annotated[list[str] | None, typer.Option("--metric", help="Only this metric; may be repeated.")] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC:-P%", help="Exit 1 if shown to be worse by more: decode_tokens_per_s:-3%."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 7 where a bound can be shown neither way.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Compare unlike and invalid cells too.")] = False,
    markdown: Annotated[str | None, typer.Option(metavar="FILE", help="Write Markdown; - prints it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Set B beside A: ratio, interval, what it shows, what differs. Exit 1 bound broken, 6 unlike, 7 cannot tell."""
    from tokbench.cli import comparing
    from tokbench.derive.compare.result import Asked

    asked = Asked(tuple(metrics or ()), tuple(fail_on or ()), force, strict, is_one_run=by is not None)
    sides = comparing.read_sides(a, b, by)
    raise typer.Exit(int(comparing.show_comparison(sides, asked, comparing.Forms(as_json, markdown))))
