"""One model in several types of weights: speed and bytes beside what the ratio of bytes predicts. Words nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from tokbench import arithmetic
from tokbench.derive.bounds.points import value_of
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.quality.chunks import UNQUANTISED, first_unquantised, is_native
from tokbench.errors import SpecError
from tokbench.record.catalog import shape_from_config
from tokbench.record.facts import DeviceFacts


@dataclasses.dataclass(frozen=True, slots=True)
class PrecisionRow:
    """One cell of a ladder of types, with the unquantised cell that it is set beside; None where there is none."""

    cell: CellResult
    reference: CellResult | None
    predicted_weight_bytes: int | None
    """From the model's shape; None where no closed form knows it."""

    @property
    def is_reference(self) -> bool:
        """Whether it is the cell that the others are set beside."""
        return self.reference is self.cell

    @property
    def is_native(self) -> bool:
        """Whether the weights were published unquantised, so that a loss of foresight is the type's doing alone."""
        return is_native(self.cell.record)

    def gain(self, name: str) -> float | None:
        """A metric of the reference over that of the cell; None where either is missing."""
        own = value_of(self.cell, name)
        theirs = None if self.reference is None else value_of(self.reference, name)
        return None if own is None or theirs is None or own == 0 else theirs / own

    @property
    def speed_x(self) -> float | None:
        """Decode speed over that of the reference."""
        slower = self.gain("decode_tokens_per_s")
        return None if slower is None else 1 / slower

    @property
    def predicted_speed_x(self) -> float | None:
        """Bytes that a step of the reference reads over those of this cell: the gain if bytes alone took time."""
        return self.gain("bytes_read_per_step")


def find_precisions(results: Results) -> tuple[tuple[PrecisionRow, ...], ...]:
    """Ladders of one run: cells that differ in the type of the weights, or in the mode too; two types at the least."""
    groups: dict[str, list[CellResult]] = {}
    for cell in results.cells:
        if cell.status == "ok" and cell.record.spec.load.kind == "static_batch":
            groups.setdefault(_key(cell), []).append(cell)
    return tuple(_ladder(results, cells) for cells in groups.values() if _is_ladder(cells))


def _key(cell: CellResult) -> str:
    spec = cell.record.spec
    tree = spec.model_dump(mode="json", exclude={"labels"})
    del tree["model"]["dtype"]
    for name in ("mode", "attention", "check_repeat", "check_tokens"):
        tree["engine"].pop(name, None)  # a key of later versions is left out where it says nothing
    return json.dumps(tree, sort_keys=True)


def _is_ladder(cells: Sequence[CellResult]) -> bool:
    dtypes = {cell.record.spec.model.dtype for cell in cells}
    return len(dtypes) > 1 and not dtypes.isdisjoint(UNQUANTISED)


def _ladder(results: Results, cells: Sequence[CellResult]) -> tuple[PrecisionRow, ...]:
    device = results.run.device
    kind = None if device is None else device.kind
    return tuple(PrecisionRow(cell, _reference(cell, cells, device), _predicted(cell, kind)) for cell in cells)


def _reference(cell: CellResult, cells: Sequence[CellResult], device: DeviceFacts | None) -> CellResult | None:
    engine = cell.record.spec.engine
    alike: dict[str, CellResult] = {
        other.record.spec.model.dtype: other
        for other in cells
        if (other.record.spec.engine.mode, other.record.spec.engine.attention) == (engine.mode, engine.attention)
    }
    return first_unquantised(alike, cell.record, device)


def _predicted(cell: CellResult, device_kind: str | None) -> int | None:
    model, dtype = cell.record.model, cell.record.spec.model.dtype
    if model is None or model.config_json is None or device_kind is None:
        return None
    try:
        shape = shape_from_config(json.loads(model.config_json), model.name)
        return arithmetic.weight_bytes(shape, arithmetic.precision_on(dtype, device_kind))
    except (SpecError, ValueError):
        return None
