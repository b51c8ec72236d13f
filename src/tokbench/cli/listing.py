"""`tokbench metrics | engines | meters`: what there is, straight from the sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from tokbench.errors import PlugError

if TYPE_CHECKING:
    from tokbench.measure.engines import EngineDescription


def _print(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(str(row[column]) for column in columns))
        return
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    console.print(table)


def show_metrics(*, as_json: bool) -> None:
    """Name, unit, direction and formula of every metric."""
    from tokbench.derive.metrics import catalog

    rows = [
        {
            "name": item.name,
            "unit": item.unit.symbol or "ratio",
            "better": item.better.value,
            "title": item.title,
            "formula": item.formula,
        }
        for item in catalog().values()
    ]
    _print("Metrics", ("name", "unit", "better", "formula"), rows, as_json=as_json)


def show_engines(*, as_json: bool) -> None:
    """Kind, modes, devices and needs of every engine."""
    from tokbench.measure.engines import describe

    rows = [
        {
            "kind": item.kind,
            "what": item.what,
            "modes": ", ".join(item.modes),
            "devices": ", ".join(item.devices),
            "needs": ", ".join(item.packages) or "nothing",
            "state": _state(item),
        }
        for item in describe()
    ]
    _print("Engines", ("kind", "what", "modes", "devices", "needs", "state"), rows, as_json=as_json)


def _state(engine: EngineDescription) -> str:
    """Whether an engine can be had, in which interpreter, or what to do."""
    from tokbench.measure.engines import environment_of, how_to_get
    from tokbench.record.spec import EngineSpec

    try:
        environment = environment_of(EngineSpec(kind=engine.kind))
    except PlugError as error:
        return f"{error.message}: {error.fix}"
    if environment.missing:
        return f"missing {', '.join(environment.missing)}: {how_to_get(engine, environment)}"
    if not environment.is_own:
        return "installed"
    found = ", ".join(f"{name} {environment.versions[name]}" for name in engine.packages)
    return f"{found} in {environment.python}"


def show_meters(*, as_json: bool) -> None:
    """Each domain that a meter reads here, with its scope and source; of the other meters, why not and what helps."""
    from tokbench.measure.meters import names

    columns = ("kind", "domain", "scope", "source", "state")
    _print("Meters", columns, [row for name in names() for row in _meter_rows(name)], as_json=as_json)


def _meter_rows(kind: str) -> list[dict[str, Any]]:
    from tokbench.measure.doctor_energy import say_domain
    from tokbench.measure.meters import Available, load_plug

    plug = load_plug(kind)
    nothing = {"kind": kind, "what": plug.DESCRIPTION.what, "domain": "–", "source": "–"}
    meter = plug.open_meter(None)
    try:
        state = meter.availability()
        if not isinstance(state, Available):
            text = f"{state.reason}; {state.remedy or 'no remedy'}"
            return [nothing | {"scope": plug.DESCRIPTION.scope, "state": text}]
        return [
            nothing
            | {"domain": item.domain, "scope": item.scope, "source": item.source}
            | {"state": "; ".join(("can be read", *say_domain(item)))}
            for item in meter.opened()
        ]
    except (OSError, PlugError) as error:
        return [nothing | {"scope": plug.DESCRIPTION.scope, "state": f"could be opened, but not read: {error}"}]
    finally:
        meter.close()
