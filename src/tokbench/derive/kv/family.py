"""One block with several kinds of attention: its cache, what context costs in it, and the cache's share of memory.

A family is the cells of a run that bear a label `attention`: the config says which block they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokbench.arithmetic import kv_cache_bytes
from tokbench.derive.bounds.points import Line, alike_but_for, step_s, value_of
from tokbench.derive.cell_shape import shape_of_cell
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.kv.found import CacheFindings, CacheRow, ContextLine, ShareTable
from tokbench.derive.kv.growth import find_growth
from tokbench.derive.kv.ways import cache_dtype, has_expanded_cache
from tokbench.derive.metrics import CellContext, UndefinedError

BLOCK = "attention"
"""The label that names a cell's block."""
MIN_POINTS = 3
SHARE_USERS = (1, 8, 64, 256)
SHARE_CONTEXTS = (4_096, 32_768, 131_072)
"""Points of the table of shares; 256 users with 32k tokens each are where data/claims/attention.yaml asks."""


def find_caches(results: Results) -> CacheFindings:
    """What a run tells of its caches; nothing without a family."""
    cells = [cell for cell in results.cells if BLOCK in cell.labels and cell.status == "ok"]
    return CacheFindings(
        run_name=results.name,
        rows=tuple(_rows(cells, results)),
        lines=tuple(_lines(cells)),
        shares=tuple(_shares(cells, results)),
        growth=tuple(find_growth(results)),
    )


def _by_block(cells: Sequence[CellResult]) -> dict[tuple[str, str], list[CellResult]]:
    """Cells by block and mode; a cache is laid out anew in another mode."""
    found: dict[tuple[str, str], list[CellResult]] = {}
    for cell in cells:
        found.setdefault((cell.labels[BLOCK], cell.conditions.mode or ""), []).append(cell)
    return found


def _rows(cells: Sequence[CellResult], results: Results) -> Iterator[CacheRow]:
    """One row per block and mode; two where cells of a block disagree, which no block should."""
    known = [(cell, size) for cell in cells if (size := value_of(cell, "kv_bytes_per_token")) is not None]
    largest = max((size for _, size in known), default=0.0)
    seen: set[tuple[str, str, float]] = set()
    for cell, size in known:
        key = (cell.labels[BLOCK], cell.conditions.mode or "", round(size, 6))
        if key in seen:
            continue
        seen.add(key)
        yield CacheRow(
            cell=cell,
            block=cell.labels[BLOCK],
            layers=_layers(cell, results),
            measured_bytes_per_token=size,
            predicted_bytes_per_token=value_of(cell, "predicted_kv_bytes_per_token"),
            largest_over_this=largest / size,
        )


def _layers(cell: CellResult, results: Results) -> int | None:
    try:
        return shape_of_cell(CellContext(cell.record, results.run)).layers
    except UndefinedError:
        return None


def _lines(cells: Sequence[CellResult]) -> Iterator[ContextLine]:
    for group in alike_but_for(cells, "workload", "prompt_tokens"):
        known = [(_context(cell), seconds, cell) for cell in group if (seconds := step_s(cell))]
        known.sort(key=lambda row: row[0])
        if len({context for context, _, _ in known}) < MIN_POINTS:
            continue
        line = Line([row[0] for row in known], [row[1] for row in known])
        intervals, last = line.intervals(), known[-1][2]
        rows, size = last.conditions.static_batch or 1, value_of(last, "kv_bytes_per_token")
        yield ContextLine(
            cell=last,
            block=last.labels[BLOCK],
            static_batch=rows,
            contexts=tuple(row[0] for row in known),
            step_s=tuple(row[1] for row in known),
            s_per_token=line.slope,
            interval_s_per_token=None if intervals is None else intervals[1],
            r_squared=line.r_squared,
            bytes_per_token=None if size is None else rows * size,
            read_bytes_per_s=value_of(last, "read_bytes_per_s"),
        )


def _context(cell: CellResult) -> int:
    """Mean real context of the decode window."""
    return (cell.conditions.prompt_tokens or 0) + cell.record.spec.workload.output_tokens // 2


def _shares(cells: Sequence[CellResult], results: Results) -> Iterator[ShareTable]:
    """One table per block of the family, at the depth that was run."""
    device = results.run.device
    kind = device.kind if device is not None else "unknown"
    done: set[str] = set()
    for (block, _), members in _by_block(cells).items():
        cell = members[0]
        weights = value_of(cell, "weight_bytes")
        if block in done or weights is None:
            continue
        try:
            shape, dtype = shape_of_cell(CellContext(cell.record, results.run)), cache_dtype(cell.record, kind)
            one = [
                kv_cache_bytes(shape, context, dtype, has_expanded_cache(cell.record))
                for context in SHARE_CONTEXTS
                if context <= shape.max_context_tokens
            ]
        except (UndefinedError, ValueError):
            continue  # a shape or a type of cache that no formula counts
        done.add(block)
        yield ShareTable(
            cell=cell,
            block=block,
            weight_bytes=weights,
            memory_bytes=device.memory_bytes if device is not None else None,
            contexts=SHARE_CONTEXTS[: len(one)],
            rows=tuple((users, tuple(users * size for size in one)) for users in SHARE_USERS),
        )
