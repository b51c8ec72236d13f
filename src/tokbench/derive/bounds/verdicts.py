"""What bounds one cell: memory, arithmetic, the host, or what lies between the kernels."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from tokbench.derive.bounds.found import BoundKind, CellBound, StepFit
from tokbench.derive.bounds.points import step_s, value_of
from tokbench.derive.evaluate import CellResult
from tokbench.derive.words import join, t
from tokbench.record.run import CellRecord
from tokbench.units import SECONDS, format_number, format_value

BOUND_SHARE = 0.8
"""From here on a ceiling bounds a step: it takes at most a quarter longer than its bytes or operations have to."""
TRUSTED_R_SQUARED = 0.9
"""A worse line's constant explains nothing."""
HOST_SHARE = 0.8
"""A host that needs so much of a window to launch it leaves the device waiting."""
LONG_KERNEL_S = 100e-6
"""What is left of a step, for each kernel: launches cost 2 to 10 us on a GPU, operators of eager mode 20 to 60 us."""
OVERHEAD_SHARE = 0.5
"""Below it neither memory nor arithmetic takes half of a step."""


def bound_cell(cell: CellResult, fits: Sequence[StepFit]) -> CellBound | None:
    """The bound of a measured static batch; None for requests and cells without a speed."""
    seconds = step_s(cell)
    if cell.status != "ok" or seconds is None:
        return None
    memory, compute = value_of(cell, "bandwidth_used_ratio"), value_of(cell, "flops_used_ratio")
    host = host_share(cell.record)
    known = [share for share in (memory, compute) if share is not None]
    rest = seconds * max(0.0, 1 - max(known)) if known else None
    prepared = cell.record.prepared[-1] if cell.record.prepared else None
    kernels = prepared.kernels_per_step if prepared is not None else None
    kind = _kind(cell, memory, compute, host)
    if kind == "overhead" and kernels and rest is not None and rest / kernels > LONG_KERNEL_S:
        kind = "kernels"
    return CellBound(
        cell=cell,
        kind=kind,
        step_s=seconds,
        memory_share=memory,
        compute_share=compute,
        host_share=host,
        rest_s=rest,
        kernels_per_step=kernels,
        kernels_counted_by=prepared.kernels_counted_by if prepared is not None else None,
        sentence=_sentence(cell, kind, (memory, compute, host), (seconds, rest, kernels), fits),
    )


def host_share(record: CellRecord) -> float | None:
    """Median share of the decode windows that the host needed to launch them; None where device and host are one."""
    shares = [
        window.closed.host_s / ((window.closed.at_ns - window.opened.at_ns) * 1e-9)
        for trial in record.good_trials()
        for window in trial.of_kind("decode")
        if window.closed is not None and window.closed.host_s is not None
    ]
    return statistics.median(shares) if shares else None


def _kind(cell: CellResult, memory: float | None, compute: float | None, host: float | None) -> BoundKind:
    """A launch queue that is full keeps the host waiting too: the host counts where the device is mostly idle alone."""
    known = [share for share in (memory, compute) if share is not None]
    if not known or (max(known) > 1 and cell.validity.verdict == "invalid"):
        return "unknown"
    ceilings: tuple[tuple[BoundKind, float | None], ...] = (("memory", memory), ("compute", compute))
    for kind, share in ceilings:
        if share is not None and share >= BOUND_SHARE:
            return kind
    if memory is None and is_cached(cell):
        return "cache"
    if memory is None or compute is None or max(known) >= OVERHEAD_SHARE:
        return "mixed"
    return "host" if host is not None and host >= HOST_SHARE else "overhead"


def is_cached(cell: CellResult) -> bool:
    """Whether bytes and ceiling are known, and yet no share of the memory's rate: the last cache holds the bytes."""
    named = [value_of(cell, name) for name in ("bytes_read_per_step", "read_bytes_per_s", "decode_tokens_per_s")]
    return None not in named and value_of(cell, "bandwidth_used_ratio") is None


def _sentence(
    cell: CellResult,
    kind: BoundKind,
    shares: tuple[float | None, float | None, float | None],
    costs: tuple[float, float | None, int | None],
    fits: Sequence[StepFit],
) -> str:
    memory, compute, host = shares
    seconds, rest, kernels = costs
    parts = (
        t("reading memory {share} %", share=_percent(memory)) if memory is not None else "",
        t("arithmetic {share} %", share=_percent(compute)) if compute is not None else "",
    )
    said = join(part for part in parts if part)
    left = ""
    if rest is not None and max(share for share in (memory, compute) if share is not None) > 1 and kind != "unknown":
        left = t(
            "; above 1: less was read than counted (a cache, uneven routing), or the ceiling is of a slower moment"
        )
    elif rest is not None and kind != "unknown":
        left = t(
            "; {rest} of {step} are neither", rest=format_value(rest, SECONDS), step=format_value(seconds, SECONDS)
        )
    if left and kernels and rest and rest / kernels <= LONG_KERNEL_S:
        each = format_value(rest / kernels, SECONDS)
        left = t("{left}, {each} for each of {kernels:,} kernels and operators", left=left, each=each, kernels=kernels)
    fit = next((found for found in fits if any(point.cell is cell for point in found.points)), None)
    constant = (
        t("; the fit's constant is {constant}", constant=format_value(fit.t0_s, SECONDS))
        if fit is not None and _is_trusted(fit)
        else ""
    )
    launching = (
        "" if host is None else t("; the host needed {share} % of the window to launch it", share=_percent(host))
    )
    what = _say_kind(kind, said)
    return t("{what}{left}{constant}{launching}.", what=what, left=left, constant=constant, launching=launching)


def _is_trusted(fit: StepFit) -> bool:
    """Whether a line's constant may be quoted: the points lie on it, and the constant is told from zero."""
    is_told = fit.t0_interval_s is not None and fit.t0_interval_s[0] > 0
    return is_told and fit.r_squared >= TRUSTED_R_SQUARED


def _say_kind(kind: BoundKind, said: str) -> str:
    """What bounds the step, and of what its time is made as far as a ceiling tells: `said`, which may be empty."""
    if kind == "unknown":
        why = t("no ceiling was measured, or the bytes are not known")
        return t("Unknown: {why}", why=t("a share above 1 ({said})", said=said) if said else why)
    if kind == "cache" and not said:
        return t("Not memory alone: the device's last cache may hold the bytes or a part")
    words: dict[BoundKind, str] = {
        "memory": t("Memory: at the measured ceilings a step is {said}", said=said),
        "compute": t("Arithmetic: at the measured ceilings a step is {said}", said=said),
        "host": t("The host: it launches too slowly; a step is {said}", said=said),
        "overhead": t("What lies between: at the measured ceilings a step is only {said}", said=said),
        "kernels": t("The kernels: few and long, at the measured ceilings a step is only {said}", said=said),
        "mixed": t("Several things: at the measured ceilings a step is {said}", said=said),
        "cache": t(
            "Not memory alone: the device's last cache may hold the bytes or a part; a step is {said}", said=said
        ),
    }
    return words[kind]


def _percent(share: float) -> str:
    return format_number(100 * share)
