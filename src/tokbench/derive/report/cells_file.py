"""Every number of every cell as a table in long form: CSV, and Parquet where its library is there. Derives nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Final

from tokbench.derive.evaluate import CellResult, Missing, Results

TEXTS: Final = ("run", "cell_id", "pair_key", "model", "weights", "precision", "engine", "mode", "hardware")
COUNTS: Final = ("static_batch", "concurrency", "prompt_tokens", "output_tokens")
JUDGED: Final = ("status", "verdict", "reasons", "metric")
NUMBERS: Final = ("value", "low", "high")
COLUMNS: Final = (*TEXTS, *COUNTS, *JUDGED, *NUMBERS, "n", "unit", "statistic", "missing")
WHOLE: Final = (*COUNTS, "n")
GET_PARQUET: Final = "pip install 'tokbench[parquet]'"


def cells_csv(results: Sequence[Results]) -> str:
    """One row per cell and metric; an empty value has its reason in `missing`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_tame(value) for value in row] for row in _rows(results))
    return buffer.getvalue()


def cells_parquet(results: Sequence[Results]) -> bytes | None:
    """The same rows with typed columns; None without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    numbers, whole, text = pyarrow.float64(), pyarrow.int64(), pyarrow.string()
    types = {name: numbers if name in NUMBERS else whole if name in WHOLE else text for name in COLUMNS}
    rows = list(_rows(results))
    columns = {name: [row[index] for row in rows] for index, name in enumerate(COLUMNS)}
    table = pyarrow.table(columns, schema=pyarrow.schema(types.items()))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def _rows(results: Sequence[Results]) -> Iterator[list[object]]:
    """Fields in the order of COLUMNS."""
    for item in results:
        for cell in item.cells:
            yield from _rows_of(cell)


def _rows_of(cell: CellResult) -> Iterator[list[object]]:
    conditions = cell.conditions
    head: list[object] = [cell.run_name, cell.cell_id, cell.pair_key, conditions.model, conditions.weights]
    head += [conditions.precision, conditions.engine, conditions.mode, conditions.hardware]
    head += [conditions.static_batch, conditions.concurrency, conditions.prompt_tokens, conditions.output_tokens]
    head += [cell.status, cell.validity.verdict, " ".join(code.name for code in cell.validity.reasons)]
    for name, value in cell.metrics.items():
        if isinstance(value, Missing):
            yield [*head, name, None, None, None, None, None, None, value.reason]
        else:
            yield [*head, name, value.value, value.low, value.high, value.n, value.unit, value.statistic, None]


def _tame(value: object) -> object:
    """A text that a spreadsheet would take for a formula is quoted; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value
