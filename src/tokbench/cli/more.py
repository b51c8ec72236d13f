"""Commands on data files and finished records, and `train`. Each imports what it needs itself."""

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
    app.command()(claims)
    app.command("import")(import_results)
    app.command()(train)


def published(
    action: Annotated[
        str | None, typer.Argument(metavar="[check]", help="check: read every row, count them, list the conflicts.")
    ] = None,
    vendors: Annotated[list[str] | None, typer.Option("--vendor", help="Only of this vendor; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model, e.g. gpt-oss-120b or llama-3.1.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only of this metric: decode_tokens_per_s, ttft_s.p50 …")] = None,
    since: Annotated[str | None, typer.Option(help="Published then or later: YYYY, YYYY-MM or YYYY-MM-DD.")] = None,
    folder: Annotated[Path | None, typer.Option("--published", help="A folder with figures of your own.")] = None,
    check_rows: Annotated[bool, typer.Option("--check", help="The same as `published check`.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every field.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List published figures, newest first, with value, date, who measured it, and where it was read; or check them."""
    from tokbench.cli import quoting
    from tokbench.derive.selection import Selection
    from tokbench.errors import SpecError

    if as_csv and as_json:
        raise SpecError("--csv and --json are two forms of one answer", fix="leave one out")
    if action not in (None, "check"):
        fix = "tokbench published check; a vendor or a model is named by --vendor NAME or --model NAME"
        raise SpecError(f"{action!r} is nothing that can be done with published figures", fix=fix)
    if check_rows or action == "check":
        if vendors or model or metric or since or as_csv or as_json:
            raise SpecError("the check looks at every row", fix="tokbench published check [--published DIR]")
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
    target: Annotated[
        float | None, typer.Option("--target-tokens-per-s", help="Also what this speed per user would take.")
    ] = None,
    used: Annotated[
        float, typer.Option("--bandwidth-used", help="For the target: share of the datasheet's bandwidth that is used.")
    ] = 1.0,
    scaling: Annotated[
        float, typer.Option("--scaling-efficiency", help="For the target: share of their sum that devices keep.")
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a model fits on devices, what it would take, and the roofline. Arithmetic on datasheets alone."""
    from tokbench.cli import fitting
    from tokbench.derive.fit import Demand, Target
    from tokbench.errors import SpecError

    if target is None and (used, scaling) != (1.0, 1.0):
        message = "--bandwidth-used and --scaling-efficiency belong to a target"
        raise SpecError(message, key="--target-tokens-per-s", fix="name the speed per user that is wanted")
    wanted = None if target is None else Target(target, used, scaling)
    asked = fitting.Question(device, count, tuple(dtypes or ()), Demand(users, context), wanted)
    fitting.show_fit(model, asked, as_json=as_json)


def check(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    as_json: JsonOption = False,
) -> None:
    """Judge every cell of a record: valid, suspect or invalid, why, and what to do. Exit 1 unless all are valid."""
    from tokbench.cli import checking

    raise typer.Exit(int(checking.show_check(run, as_json=as_json)))


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="The baseline: a run folder, or a file that import reads.")],
    b: Annotated[
        Path | None, typer.Argument(metavar="B", help="What is set beside it: a run folder or such a file.")
    ] = None,
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


def claims(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders that measured claims may rest on.")] = None,
    topic: Annotated[str | None, typer.Option("--only", metavar="TOPIC", help="Only this topic, e.g. moe.")] = None,
    name: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="One claim, from its verdict down to the sources.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Claims of your own, in place of ours.")] = None,
    folder: Annotated[Path | None, typer.Option("--published", help="A folder with figures of your own.")] = None,
    as_json: JsonOption = False,
    measure: Annotated[
        bool, typer.Option("--run", help="Measure what is missing and can be measured here: plan first, then the runs.")
    ] = False,
    is_agreed: Annotated[bool, typer.Option("--yes", help="With --run: do not ask.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="With --run: folder of the records; default runs/claims. Finished ones are taken."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Also write the page of the claims into this folder.")
    ] = None,
    language: Annotated[str, typer.Option("--lang", help="Language of the page: en or zh.")] = "en",
) -> None:
    """Judge every claim: supported, refuted, partly, open or untested. Exit 0 whatever they are; 5: a row is wrong.

    With --run as `tokbench run`: 1 a trial failed, 3 an engine or device is missing, 130 interrupted.
    """
    from tokbench.cli import claiming
    from tokbench.errors import ExitCode, SpecError

    asked, folders, code = claiming.AskedClaims(topic, name, file, folder), tuple(runs or ()), ExitCode.OK
    if measure:
        from tokbench.cli import claim_running

        wanted = claim_running.WantedRun(out or claim_running.DEFAULT_OUT, is_agreed, as_json)
        code, folders = claim_running.run_missing(folders, asked, wanted)
    elif is_agreed or out is not None:
        raise SpecError("--yes and --out belong to --run", key="--run", fix="tokbench claims --run --yes")
    else:
        claiming.show_claims(folders, asked, as_json=as_json)
    if report is not None:
        for path in claiming.write_claims(folders, asked, report, language):
            typer.echo(f"written: {path}", err=as_json)
    raise typer.Exit(int(code))


def import_results(
    file: Annotated[Path, typer.Argument(help="What the tool wrote: JSON, or one JSON object a line.")],
    kind: Annotated[
        str | None,
        typer.Option(help="llama-bench, vllm-latency, vllm-serve or pytest-benchmark; default: seen from the file."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A condition that the file does not state: output_tokens=128."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write imported.json into this folder, for tokbench compare.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read another tool's results in our names and units, with who stated each condition and what is missing."""
    from tokbench.cli import importing

    importing.show_import(importing.AskedImport(file, kind, tuple(given or ()), out, as_json))


def train(
    what: Annotated[str, typer.Argument(metavar="mtp|pair", help="A drafting head for a model, or two toy models.")],
    model: Annotated[
        str | None, typer.Option(help="mtp: the model that the head is for, as `model.source` in a config.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="mtp: the type that the model runs in while it writes.")] = "bfloat16",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; mtp: default the cache, where `method: mtp` looks.")
    ] = None,
    size: Annotated[str, typer.Option(help="pair: small (minutes), medium (hours) or large (a GPU).")] = "small",
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of training; default by what is trained.")] = None,
    rows: Annotated[int, typer.Option(min=16, help="mtp: texts that the model writes first.")] = 256,
    depths: Annotated[
        int, typer.Option(min=1, max=8, help="mtp: how far the head is chained in training; above 1 for gamma above 1.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the prompts, the weights and the order.")] = 1,
) -> None:
    """Train an MTP head on a model's own text, or a toy pair of target and draft, for speculative decoding."""
    from rich.console import Console

    from tokbench.cli import training

    asked = training.TrainRequest(what, model, dtype, out, size, steps, rows, depths, seed)
    training.train(asked, Console(soft_wrap=True))
