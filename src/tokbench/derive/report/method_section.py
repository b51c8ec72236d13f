"""How the numbers were had: windows, stamps, warm-up, replication, order, processes, statistics, token checks."""

from __future__ import annotations

from collections import Counter

from tokbench.derive import wording
from tokbench.derive.evaluate import CellResult, Results
from tokbench.derive.metrics import METRICS_VERSION
from tokbench.derive.report.document import Block, Cell, Column, Section, Table, bullets
from tokbench.derive.report.fields import cell_columns, cell_fields
from tokbench.derive.report.material import Material
from tokbench.derive.words import SEMICOLON, join, mark, say, t
from tokbench.record.observations import IdentityChecked, RequestTrace, StepTrace
from tokbench.record.run import Trial
from tokbench.stats import MIN_BLOCKS
from tokbench.units import SECONDS, format_number, format_value

STAMP_WORDS = {
    "host": mark("the host, after waiting for the device"),
    "device_event": mark("events on the device, mapped onto the host's monotonic clock"),
    "kernel_rx": mark("the kernel, when the packet came in"),
    "script": mark("a script (no real clock)"),
}


WINDOWS = (
    mark("warmup"),
    mark("idle"),
    mark("prefill"),
    mark("decode"),
    mark("ceiling"),
    mark("experiment"),
    mark("energy_prefill"),
    mark("energy_decode"),
)
"""Kinds of windows."""


def method_sections(material: Material) -> list[Section]:
    """The procedure as the record shows it, and whether the tokens were the right ones."""
    blocks: tuple[Block, ...] = tuple(bullets(*_procedure(item)) for item in material.results)
    if material.has_several_runs:
        sections = [Section(t("How this was measured"), ())]
        titles = [item.name for item in material.results]
        sections += [Section(title, (block,), level=3) for title, block in zip(titles, blocks, strict=True)]
    else:
        sections = [Section(t("How this was measured"), blocks)]
    checks = [(cell, check) for cell in material.cells for check in cell.record.identity]
    if checks:
        rows = tuple(_identity_row(cell, check, material) for cell, check in checks)
        is_static = any(cell.conditions.static_batch is not None for cell, _ in checks)
        whose = t("first row of the batch") if is_static else t("requests answered side by side")
        caption = t("Our greedy tokens beside those of the library's own generation, {whose}.", whose=whose)
        return [*sections, Section(t("Are the tokens right"), (Table(_identity_columns(), rows, caption),), level=3)]
    note = bullets(t("No check of the tokens against a reference is in the record."))
    return [*sections, Section(t("Are the tokens right"), (note,), level=3)]


def _identity_columns() -> tuple[Column, ...]:
    return (
        *cell_columns(),
        Column(t("Reference")),
        Column(t("Compared"), "tokens", "right"),
        Column(t("Outcome")),
    )


def _procedure(results: Results) -> list[str]:
    trials = [trial for cell in results.cells for trial in cell.record.trials]
    good = [trial for trial in trials if trial.finished is not None]
    return [
        _say_windows(trials),
        _say_stamps(good),
        _say_warmup(good),
        _say_replication(results),
        _say_processes(results, trials),
        t(
            "Order: the sequence of trials is drawn with seed {seed} and stands in the record.",
            seed=results.run.header.seed,
        ),
        t(
            "Statistics: one value per repetition, never per token (tokens of one trial follow from one "
            "another); the interval is Student's t at 95 % on logarithms, over the means of the processes where "
            "there are {blocks} or more, else over the repetitions; the value is the geometric mean. How "
            "firm each number is stands above.",
            blocks=MIN_BLOCKS,
        ),
        t(
            "Nothing derived is in the record: this report was computed from it with metrics version {version}.",
            version=METRICS_VERSION,
        ),
    ]


def _say_windows(trials: list[Trial]) -> str:
    kinds = Counter(window.kind for trial in trials for window in trial.windows.values())
    if not kinds:
        requests = sum(len(trial.requests) for trial in trials)
        return t(
            "Windows: {trials} trials with {requests} requests, each stamped on its own.",
            trials=len(trials),
            requests=requests,
        )
    listed = join(t("{count} {kind}", count=count, kind=say(kind)) for kind, count in sorted(kinds.items()))
    return t(
        "Windows: {trials} trials with {listed}. Allocation, compilation and graph capture lie outside of "
        "them; a window closes when all its work is finished.",
        trials=len(trials),
        listed=listed,
    )


def _say_stamps(trials: list[Trial]) -> str:
    traces = [trace for trial in trials for window in trial.windows.values() for trace in window.steps]
    requests = [request for trial in trials for request in trial.requests]
    stamped: list[StepTrace | RequestTrace] = [*traces, *requests]
    sources = Counter(trace.stamped_by for trace in stamped)
    if not sources:
        return t("Stamps: no trial came to its end.")
    words = join((t(STAMP_WORDS[source]) for source in sorted(sources)), SEMICOLON)
    stamps = sum(len(trace.step_at_ns) for trace in traces) + sum(len(request.chunk_at_ns) for request in requests)
    errors = [trace.clock_error_s for trace in stamped if trace.clock_error_s is not None]
    error = t("; clock error at most {error}", error=format_value(max(errors), SECONDS)) if errors else ""
    counted = {request.tokens_counted_by for request in requests}
    tokens = t("; tokens of requests counted by {counted}", counted=join(sorted(counted))) if counted else ""
    return t(
        "Stamps: {stamps:,} of them, taken by {words}{error}{tokens}.",
        stamps=stamps,
        words=words,
        error=error,
        tokens=tokens,
    )


def _say_warmup(trials: list[Trial]) -> str:
    steady = Counter(trial.finished.is_steady for trial in trials if trial.finished is not None)
    return t(
        "Warm-up: a new process or cell runs until its step times are steady; what it made is kept in the "
        "record and left out of every number. Of {trials} finished trials {steady} followed a warm-up that "
        "became steady, {unsteady} one that did not, {none} had none of their own.",
        trials=len(trials),
        steady=steady[True],
        unsteady=steady[False],
        none=steady[None],
    )


def _say_replication(results: Results) -> str:
    counts = [len(cell.record.good_trials()) for cell in results.cells if cell.status == "ok"]
    if not counts:
        return t("Replication: no repetition came to its end.")
    if max(counts) == 1:
        return t("Replication: 1 repetition per measured cell.")
    return t("Replication: {span} repetitions per measured cell.", span=_say_span(counts))


def _say_span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else t("{low} to {high}", low=low, high=high)


def _say_processes(results: Results, trials: list[Trial]) -> str:
    workers = {trial.started.worker_id for trial in trials}
    per_cell = [
        len({trial.started.worker_id for trial in cell.record.good_trials()})
        for cell in results.cells
        if cell.status == "ok"
    ]
    if not per_cell:
        return t("Worker processes: {count}.", count=len(workers))
    caution = t("; what differs between processes is not in every interval") if min(per_cell) < MIN_BLOCKS else ""
    return t(
        "Worker processes: {count} in all, {span} per measured cell{caution}.",
        count=len(workers),
        span=_say_span(per_cell),
        caution=caution,
    )


def _identity_row(cell: CellResult, check: IdentityChecked, material: Material) -> tuple[Cell, ...]:
    return (
        *cell_fields(cell, material.has_several_runs),
        Cell(check.reference),
        Cell(str(check.tokens_compared), sort=float(check.tokens_compared)),
        Cell(_say_identity(cell, check)),
    )


def _say_identity(cell: CellResult, check: IdentityChecked) -> str:
    label = wording.label_of(cell)
    suffix = t(" ({label}: near ties are common)", label=label) if label and check.first_divergence is not None else ""
    if check.first_divergence is None:
        return t("identical")
    gap = (
        ""
        if check.top2_gap is None
        else t("; top two logits {top2_gap} apart there", top2_gap=format_number(check.top2_gap))
    )
    return t(
        "first divergence at token {first_divergence}{gap}{suffix}",
        first_divergence=check.first_divergence,
        gap=gap,
        suffix=suffix,
    )
