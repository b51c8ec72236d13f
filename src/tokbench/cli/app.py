"""The command line. It knows both wings; everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

import tokbench
from tokbench.cli.more import register
from tokbench.errors import ExitCode, Terminated, TokbenchError

app = typer.Typer(
    name="tokbench",
    help="Measure tokens per second, latency and energy of local language models, and compare with Cerebras and Groq.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the config.")
]
BusyOption = Annotated[bool, typer.Option("--allow-busy", help="Use a GPU that others use; its cells are marked.")]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(tokbench.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def run(
    config: Annotated[Path | None, typer.Argument(help="A config file, e.g. configs/smoke.yaml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/NAME-TIME.")] = None,
    overrides: SetOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="An answer in five minutes once the weights are there.")
    ] = False,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Finish a run that was interrupted.")] = None,
    allow_busy: BusyOption = False,
    report: Annotated[bool, typer.Option(help="Write the report after each block.")] = True,
) -> None:
    """Measure what a config asks for and write a report."""
    from tokbench.cli import running
    from tokbench.cli.console import RunConsole

    request = running.RunRequest(config, out, tuple(overrides or ()), quick, resume, allow_busy, report)
    code = running.run(request, RunConsole(soft_wrap=True))
    raise typer.Exit(int(code))


@app.command()
def plan(
    config: Annotated[Path, typer.Argument(help="A config file.")],
    overrides: SetOption = None,
    quick: Annotated[bool, typer.Option("--quick", help="As `run --quick`.")] = False,
    allow_busy: BusyOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what would run: memory against the device, roofline ceiling, expected time. Fetches nothing."""
    from tokbench.cli import planning

    planning.show_plan(config, tuple(overrides or ()), quick=quick, allow_busy=allow_busy, as_json=as_json)


@app.command()
def report(
    runs: Annotated[list[Path] | None, typer.Argument(help="One or more run folders, also of other machines.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default the first run's folder.")] = None,
    latest: Annotated[bool, typer.Option("--latest", help="The run under runs/ that was written to last.")] = False,
    published: Annotated[Path | None, typer.Option(help="A folder with published figures of your own.")] = None,
    vendors: Annotated[
        list[str] | None,
        typer.Option(
            "--vendor", help="Only this vendor; may be repeated. Default: Cerebras, Groq, and others with your model."
        ),
    ] = None,
    baseline: Annotated[Path | None, typer.Option(metavar="RUN", help="Also set every cell beside this run's.")] = None,
    claims: Annotated[bool, typer.Option("--claims", help="Also judge the claims with these runs.")] = False,
    language: Annotated[str, typer.Option("--lang", help="Language of the report: en or zh.")] = "en",
    figures: Annotated[bool, typer.Option(help="Draw the figures.")] = True,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="cost.KEY=VALUE", help="Another price, for this report alone.")
    ] = None,
) -> None:
    """Recompute a report from records alone; several records make one report."""
    from tokbench.cli import reporting

    folders = reporting.choose_runs(runs or (), latest=latest)
    if vendors:
        reporting.check_vendors(vendors, published)
    request = reporting.ReportRequest(
        folders=folders,
        out=out or folders[0],
        vendors=tuple(vendors) if vendors else None,
        with_figures=figures,
        published=published,
        overrides=tuple(overrides or ()),
        baseline=baseline,
        language=language,
        with_claims=claims,
    )
    paths, lines = reporting.report_runs(request)
    for line in (*lines, *reporting.say_files(paths)):
        typer.echo(line)


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Tell what can be measured here, what is missing, and how to get it."""
    from tokbench.measure.doctor import examine, render_plain

    findings = examine()
    if as_json:
        typer.echo(json.dumps([finding.model_dump(mode="json") for finding in findings], indent=2))
    else:
        typer.echo(render_plain(findings))


@app.command()
def metrics(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every metric: name, unit, which way is better, formula."""
    from tokbench.cli import listing

    listing.show_metrics(as_json=as_json)


@app.command()
def engines(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every engine: modes, devices, what it needs and whether that is installed."""
    from tokbench.cli import listing

    listing.show_engines(as_json=as_json)


@app.command()
def meters(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every energy meter and whether it can be read here."""
    from tokbench.cli import listing

    listing.show_meters(as_json=as_json)


register(app)


def main() -> int:
    """Run a command; a fault of the user's is one message on standard error and a documented exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of another encoding gets "?" for what it cannot show
            stream.reconfigure(errors="replace")
    try:
        code = _invoke()
        sys.stdout.flush()
    except TokbenchError as error:
        print(f"tokbench: error: {error}", file=sys.stderr)
        return int(error.exit_code)
    except (KeyboardInterrupt, EOFError) as interrupt:
        is_term = isinstance(interrupt, Terminated)
        print(f"tokbench: {'terminated' if is_term else 'interrupted'}", file=sys.stderr)
        return int(ExitCode.TERMINATED if is_term else ExitCode.INTERRUPTED)
    except BrokenPipeError:  # whoever read our output is gone, as in `| head`
        return int(ExitCode.OK)
    except Exception as error:
        return _usage_error(error)
    return code


def _invoke() -> int:
    """Run the command that was typed. Not through typer's own `main`: it turns Ctrl-C and SIGTERM into one code."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("tokbench", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    return int(ExitCode.OK)


def _usage_error(error: Exception) -> int:
    """A wrong option or argument ends with 2; anything else is a bug of ours and keeps its traceback."""
    usage = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
    if isinstance(error, typer.Abort):
        return int(ExitCode.INTERRUPTED)
    if not isinstance(error, usage):
        raise error
    known = cast(typer.BadParameter, error)
    if type(error).__name__ == "NoArgsIsHelpError":
        known.show()
    else:
        path = known.ctx.command_path if known.ctx is not None else "tokbench"
        print(f"tokbench: error: {known.format_message()}\n  fix: {path} --help", file=sys.stderr)
    return int(ExitCode.SPEC)


if __name__ == "__main__":
    sys.exit(main())
