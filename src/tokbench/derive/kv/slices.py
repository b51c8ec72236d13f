"""Some layers of a model that is too large for the device: time per layer, and its whole depth by extrapolation.

What no slice can tell: the traffic between devices that the whole model needs, and whatever overlaps. A lower bound.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tokbench.derive import wording
from tokbench.derive.bounds.points import Line, alike_but_for, step_s, value_of
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.kv.found import Slice
from tokbench.errors import SpecError
from tokbench.record.catalog import ModelRow, find_model
from tokbench.record.depth import layers_of

MIN_POINTS = 3
NAMED_SOURCES = ("shape", "hf")


def find_slices(results: Results) -> Iterator[Slice]:
    """Cells of a known model cut to several depths, each below its own, and alike in all else."""
    cells = [cell for cell in results.cells if cell.status == "ok" and cell.record.spec.model.layers is not None]
    for group in alike_but_for(cells, "model", "layers"):
        row = _row_of(group[0])
        whole = None if row is None else layers_of(row.config)
        if row is None or whole is None:
            continue
        known = sorted(_depths(group, _leading(row)), key=lambda item: item[0])
        if len({layers for layers, _, _ in known}) >= MIN_POINTS and known[-1][0] < whole:
            yield _slice(row.name, whole, known)


def _row_of(cell: CellResult) -> ModelRow | None:
    """The catalogue's row of the whole model; None for weights of a folder or package, which it does not name."""
    kind, _, name = cell.record.spec.model.source.partition(":")
    try:
        return find_model(name.partition("@")[0]) if kind in NAMED_SOURCES else None
    except SpecError:
        return None  # a row that a later version of the catalogue no longer has


def _leading(row: ModelRow) -> int:
    """Layers at the front that are of another kind: a slice that ends among them tells nothing of those behind."""
    leading = row.config.get("first_k_dense_replace", 0)
    return leading if isinstance(leading, int) else 0


def _depths(group: Sequence[CellResult], leading: int) -> Iterator[tuple[int, float, CellResult]]:
    for cell in group:
        model, seconds = cell.record.model, step_s(cell)
        layers = None if model is None or model.config_json is None else layers_of(json.loads(model.config_json))
        if layers is not None and seconds is not None and layers >= leading:
            yield layers, seconds, cell


def _slice(name: str, whole: int, known: Sequence[tuple[int, float, CellResult]]) -> Slice:
    layers = [row[0] for row in known]
    line, last = Line(layers, [row[1] for row in known]), known[-1][2]
    sizes = [value_of(cell, "bytes_read_per_step") for _, _, cell in known]
    known_sizes = [size for size in sizes if size is not None]
    intervals, is_rising = line.intervals(), line.slope > 0
    return Slice(
        cell=last,
        model=wording.say_labelled(name, wording.label_of(last)),
        whole_layers=whole,
        layers=tuple(layers),
        step_s=tuple(row[1] for row in known),
        s_per_layer=line.slope,
        interval_s_per_layer=None if intervals is None else intervals[1],
        rest_s=line.intercept,
        r_squared=line.r_squared,
        whole_step_s=line.intercept + line.slope * whole if is_rising else None,
        interval_whole_step_s=line.interval_at(whole) if is_rising else None,
        bytes_per_layer=Line(layers, known_sizes).slope if len(known_sizes) == len(sizes) else None,
        read_bytes_per_s=value_of(last, "read_bytes_per_s"),
    )
