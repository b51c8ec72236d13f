"""Checks the names in a config against what there is: engines, meters, experiments, vendors, files. Opens none."""

from __future__ import annotations

from pathlib import Path

from tokbench.cli.reporting import check_vendors
from tokbench.errors import PlugError, SpecError
from tokbench.measure.engines import check_plug
from tokbench.measure.experiments import check_experiment
from tokbench.measure.experiments import load_plug as load_experiment
from tokbench.measure.meters import load_plug as load_meter
from tokbench.record.spec import CellSpec
from tokbench.record.sweep import Config, expand


def check_names(config: Config) -> None:
    """Refuse what a config names and nobody has, before a device is looked for.

    Raises:
        SpecError: an unknown vendor, a missing file, or options that an experiment cannot take.
        PlugError: an unknown engine, mode, meter or experiment.
    """
    try:
        check_vendors(config.run.compare.published)
    except SpecError as error:
        raise config.tree.fault(error.message, ("compare", "published"), fix=error.fix) from None
    if not isinstance(config.run.energy, str):
        for meter in config.run.energy.meters or ():
            load_meter(meter)
    for spec in (cell.spec for cell in expand(config, resolve_max=lambda spec: 1)):
        check_plug(spec.engine)
        if spec.experiment != "none":
            load_experiment(spec.experiment.kind)
            _check_options(config, spec)
        if spec.workload.path is not None and not Path(spec.workload.path).is_file():
            message = f"there is no file {spec.workload.path!r}"
            raise config.tree.fault(message, ("workload", "path"), fix="paths start at the folder you are in")


def _check_options(config: Config, spec: CellSpec) -> None:
    """What the plug says of the options, with the line of the config."""
    try:
        check_experiment(spec)
    except (PlugError, SpecError) as error:
        told = f"{error.key}: {error.message}" if isinstance(error, SpecError) and error.key else error.message
        raise config.tree.fault(told.removeprefix("experiment."), ("experiment",), fix=error.fix) from None
