"""How the numbers were had: windows, stamps, warm-up, replication, order, processes, statistics, token checks."""

from __future__ import annotations

from collections import Counter

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.metrics import METRICS_VERSION
from tokbench.derive.report.document import Block, Cell, Column, Section, Table, bullets
from tokbench.derive.report.fields import CELL_COLUMNS, cell_fields
from tokbench.derive.report.material import Material
from tokbench.record.observations import IdentityChecked, RequestTrace, StepTrace
from tokbench.record.run import Trial
from tokbench.stats import MIN_BLOCKS
from tokbench.units import SECONDS, format_number, format_value

STAMP_WORDS = {
    "host": "the host, after waiting for the device",
    "device_event": "events on the device, mapped onto the host's monotonic clock",
    "kernel_rx": "the kernel, when the packet came in",
    "script": "a script (no real clock)",
}
IDENTITY_COLUMNS = (
    *CELL_COLUMNS,
    Column("Reference"),
    Column("Compared", "tokens", "right"),
    Column("Outcome"),
)


def method_sections(material: Material) -> list[Section]:
    """The procedure as the record shows it, and whether the tokens were the right ones."""
    blocks: tuple[Block, ...] = tuple(bullets(*_procedure(item)) for item in material.results)
    if material.has_several_runs:
        sections = [Section("How this was measured", ())]
        titles = [item.name for item in material.results]
        sections += [Section(title, (block,), level=3) for title, block in zip(titles, blocks, strict=True)]
    else:
        sections = [Section("How this was measured", blocks)]
    checks = [(cell, check) for cell in material.cells for check in cell.record.identity]
    if checks:
        rows = tuple(_identity_row(cell, check, material) for cell, check in checks)
        is_static = any(cell.conditions.static_batch is not None for cell, _ in checks)
        whose = "first row of the batch" if is_static else "requests answered side by side"
        caption = f"Our greedy tokens beside those of the library's own generation, {whose}."
        return [*sections, Section("Are the tokens right", (Table(IDENTITY_COLUMNS, rows, caption),), level=3)]
    note = bullets("No check of the tokens against a reference is in the record.")
    return [*sections, Section("Are the tokens right", (note,), level=3)]


def _procedure(results: Results) -> list[str]:
    trials = [trial for cell in results.cells for trial in cell.record.trials]
    good = [trial for trial in trials if trial.finished is not None]
    return [
        _say_windows(trials),
        _say_stamps(good),
        _say_warmup(good),
        _say_replication(results),
        _say_processes(results, trials),
        f"Order: the sequence of trials is drawn with seed {results.run.header.seed} and stands in the record.",
        "Statistics: one value per repetition, never per token (tokens of one trial follow from one another); the "
        f"interval is Student's t at 95 % on logarithms, over the means of the processes where there are {MIN_BLOCKS} "
        "or more, else over the repetitions; the value is the geometric mean. How firm each number is stands above.",
        f"Nothing derived is in the record: this report was computed from it with metrics version {METRICS_VERSION}.",
    ]


def _say_windows(trials: list[Trial]) -> str:
    kinds = Counter(window.kind for trial in trials for window in trial.windows.values())
    if not kinds:
        requests = sum(len(trial.requests) for trial in trials)
        return f"Windows: {len(trials)} trials with {requests} requests, each stamped on its own."
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    return (
        f"Windows: {len(trials)} trials with {listed}. Allocation, compilation and graph capture lie outside of them; "
        "a window closes when all its work is finished."
    )


def _say_stamps(trials: list[Trial]) -> str:
    traces = [trace for trial in trials for window in trial.windows.values() for trace in window.steps]
    requests = [request for trial in trials for request in trial.requests]
    stamped: list[StepTrace | RequestTrace] = [*traces, *requests]
    sources = Counter(trace.stamped_by for trace in stamped)
    if not sources:
        return "Stamps: no trial came to its end."
    words = "; ".join(STAMP_WORDS[source] for source in sorted(sources))
    stamps = sum(len(trace.step_at_ns) for trace in traces) + sum(len(request.chunk_at_ns) for request in requests)
    errors = [trace.clock_error_s for trace in stamped if trace.clock_error_s is not None]
    error = f"; clock error at most {format_value(max(errors), SECONDS)}" if errors else ""
    counted = {request.tokens_counted_by for request in requests}
    tokens = f"; tokens of requests counted by {', '.join(sorted(counted))}" if counted else ""
    return f"Stamps: {stamps:,} of them, taken by {words}{error}{tokens}."


def _say_warmup(trials: list[Trial]) -> str:
    steady = Counter(trial.finished.is_steady for trial in trials if trial.finished is not None)
    return (
        "Warm-up: a new process or cell runs until its step times are steady; what it made is kept in the record and "
        f"left out of every number. Of {len(trials)} finished trials {steady[True]} followed a warm-up that became "
        f"steady, {steady[False]} one that did not, {steady[None]} had none of their own."
    )


def _say_replication(results: Results) -> str:
    counts = [len(cell.record.good_trials()) for cell in results.cells if cell.status == "ok"]
    if not counts:
        return "Replication: no repetition came to its end."
    span = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    once = span == "1"
    return f"Replication: {span} repetition{'' if once else 's'} per measured cell."


def _say_processes(results: Results, trials: list[Trial]) -> str:
    workers = {trial.started.worker_id for trial in trials}
    per_cell = [
        len({trial.started.worker_id for trial in cell.record.good_trials()})
        for cell in results.cells
        if cell.status == "ok"
    ]
    if not per_cell:
        return f"Worker processes: {len(workers)}."
    caution = "; what differs between processes is not in every interval" if min(per_cell) < MIN_BLOCKS else ""
    span = str(min(per_cell)) if min(per_cell) == max(per_cell) else f"{min(per_cell)} to {max(per_cell)}"
    return f"Worker processes: {len(workers)} in all, {span} per measured cell{caution}."


def _identity_row(cell: CellResult, check: IdentityChecked, material: Material) -> tuple[Cell, ...]:
    return (
        *cell_fields(cell, material.has_several_runs),
        Cell(check.reference),
        Cell(str(check.tokens_compared), sort=float(check.tokens_compared)),
        Cell(_say_identity(cell, check)),
    )


def _say_identity(cell: CellResult, check: IdentityChecked) -> str:
    label = wording.label_of(cell)
    suffix = f" ({label}: near ties are common)" if label and check.first_divergence is not None else ""
    if check.first_divergence is None:
        return "identical"
    gap = "" if check.top2_gap is None else f"; top two logits {format_number(check.top2_gap)} apart there"
    return f"first divergence at token {check.first_divergence}{gap}{suffix}"
