"""The configs that claims name really have cells that the claims' inputs mean: by label, condition and experiment."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from tokbench.derive.claims.followed import FIELDS
from tokbench.derive.claims.rows import ClaimRow, Half
from tokbench.derive.claims.rules import Rules, load_claims
from tokbench.derive.claims.selecting import read_selection
from tokbench.derive.evaluate import PRECISIONS
from tokbench.record.depth import name_with_layers
from tokbench.record.spec import CellSpec
from tokbench.record.sweep import expand, read_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
HALVES = [(row, half) for row in load_claims() for half in row.halves() if half.needs or row.needs]


def needed_by(row: ClaimRow, half: Half) -> list[Path]:
    command = half.needs or row.needs or ""
    return [CONFIGS / name for name in re.findall(r"configs/([\w-]+\.yaml)", command)]


@functools.cache
def cells_of(config: Path) -> tuple[tuple[CellSpec, str], ...]:
    """Every cell with the kind of device its config is made for, a range up to what memory holds taken to 256."""
    kind = "cuda" if config.stem.endswith("-h200") else "cpu"
    return tuple((cell.spec, kind) for cell in expand(read_config(config), lambda spec: 256))


def value_of(spec: CellSpec, field: str, device_kind: str) -> object:
    """What a cell of this spec would say to a field of a selection; conditions that only a run tells are None."""
    if field.startswith("label."):
        return spec.labels.get(field.removeprefix("label."))
    name = spec.model.source.partition(":")[2].rpartition("/")[2]
    load = spec.load
    return {
        "device_kind": device_kind,
        "experiment": spec.experiment if isinstance(spec.experiment, str) else spec.experiment.kind,
        "model": name if spec.model.layers is None else name_with_layers(name, spec.model.layers),
        "weights": spec.model.weights,
        "precision": PRECISIONS.get(spec.model.dtype, spec.model.dtype),
        "prompt_tokens": spec.workload.prompt_tokens,
        "output_tokens": spec.workload.output_tokens,
        "static_batch": load.static_batch if load.kind == "static_batch" else None,
        "speculation": spec.speculation if isinstance(spec.speculation, str) else spec.speculation.method,
        "mode": spec.engine.mode,
    }[field]


@pytest.mark.parametrize(("row", "half"), HALVES, ids=[f"{row.id}-{half.name}" for row, half in HALVES])
def test_every_measured_input_has_cells_in_the_configs_that_are_named(row: ClaimRow, half: Half) -> None:
    configs = [path for path in needed_by(row, half) if path.exists()]
    if not configs:
        pytest.skip("nobody wrote such a config, which README says, or the command runs none")
    rules = Rules(row, half)
    cells = [pair for path in configs for pair in cells_of(path)]
    for name in sorted(rules.inputs_of(rules.supports, rules.refutes)):
        asked = row.inputs[name].measured
        if asked is None:
            continue
        wanted = read_selection(asked.select, FIELDS)
        meant = [spec for spec, kind in cells if all(item.accepts(value_of(spec, item.field, kind)) for item in wanted)]
        assert meant, f"{name}: no cell of {', '.join(path.name for path in configs)} is what {asked.select} means"


def test_the_configs_for_portable_frameworks_have_two_on_both_platforms() -> None:
    """claims-h200.yaml has Triton alone: beside a CPU's JAX and MLX the claim was open, "no value", after both runs."""
    (row,) = (row for row in load_claims() if row.id == "portable-stacks-cuda-target")
    (half,) = row.halves()
    cells = [pair for path in needed_by(row, half) for pair in cells_of(path)]
    named = []
    for name in ("on_cpu", "on_gpu"):
        asked = row.inputs[name].measured
        assert asked is not None
        wanted = read_selection(asked.select, FIELDS)
        meant = [spec for spec, kind in cells if all(item.accepts(value_of(spec, item.field, kind)) for item in wanted)]
        named.append({spec.labels["framework"] for spec in meant})
    assert {"jax", "mlx"} <= named[0] & named[1]
