"""What to do about a cell that is not plainly valid: one sentence per reason code, one per way a cell can end.

All of it is English, for `words.say` to say anew. It judges nothing: `validity` and `evaluate` do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from tokbench.derive.codes import CRITERIA, Code, weight_of
from tokbench.derive.evaluate import CellResult, Results, Status
from tokbench.derive.words import mark, t

REMEDIES: Final[Mapping[Code, str]] = {
    Code.TOO_FEW_REPETITIONS: mark(
        "Finish the run with --resume, or start one with a larger budget.total and with "
        "stop.min_repetitions of at least 3."
    ),
    Code.SHARED_PROCESS: mark(
        "Give the run more time (--set budget.total=60min) and stop.blocks of at least 3; until then "
        "take no small difference for real: another process may give another number."
    ),
    Code.UNSTEADY: mark(
        "Give the warm-up more time (--set stop.warmup_cap=30s), and look for load or heat that comes and goes."
    ),
    Code.FOREIGN_LOAD: mark("Run again on a device of your own: `tokbench doctor` shows what else is on it."),
    Code.FOREIGN_UNKNOWN: mark(
        "Look at the device from outside the container; where nobody else used it, this is no fault."
    ),
    Code.CONTENDED_CPU: mark("Stop what else uses the CPU, or run again when the machine is quiet."),
    Code.CONTENDED_HOST: mark(
        "Nothing where the device does the work; where the host is the limit (eager mode, small "
        "models), run again when the machine is quiet."
    ),
    Code.THROTTLED: mark(
        "Cool the device, let it rest, and run again; compare only with runs that were not slowed either."
    ),
    Code.POWER_CAPPED: mark("Nothing for a sustained speed; beside other devices, say at what power limit it was had."),
    Code.CLOCKS_MOVED: mark(
        "Look at the figure without the repetitions that it touches; let the device rest, keep others "
        "off it, and run again. tokbench never sets clocks: whoever owns the device may lock them."
    ),
    Code.SENTINEL_DRIFT: mark(
        "Find what changed within the block (heat, clocks, other load: see Drift in the report) and "
        "run again; differences smaller than the drift show nothing."
    ),
    Code.ON_BATTERY: mark("Plug the machine in and run again."),
    Code.TOKEN_COUNTS: mark(
        "Do not use the number: the engine made fewer or more tokens than asked; see its trials in "
        "events.jsonl and report it as a bug of the engine or of tokbench."
    ),
    Code.DRAFT_COUNTS: mark(
        "Do not use the number: acceptance and speed-up rest on counts that contradict one another; see the "
        "speculation_rounds of its trials in events.jsonl and report it as a bug of the engine or of tokbench."
    ),
    Code.ABOVE_ROOFLINE: mark(
        "Do not use the number: it read less than was counted, or the ceiling was measured too low; "
        "measure again on a quiet device."
    ),
    Code.ABOVE_UNIFORM_ROUTING: mark(
        "Take the speed as it is, and no share of the ceiling: tokens that are routed alike "
        "read fewer experts than were counted; if it stays above on other prompts, measure the ceiling again."
    ),
    Code.ABOVE_MATMUL_CEILING: mark(
        "Do not use the number: it computed less than was counted, or the ceiling was measured "
        "too low; measure again on a quiet device."
    ),
    Code.ABOVE_DATASHEET: mark(
        "Do not use the number before you know why: check that the row of devices.yaml is this "
        "device, and that its clocks are not above those that the maker states."
    ),
    Code.RECOMPILED: mark(
        "Do not use the number: run again, and if it stays so, take mode eager and report it as a bug."
    ),
    Code.NOT_INTERLEAVED: mark(
        "Choose a smaller model or fewer modes so that all groups fit side by side, or take "
        "differences between the groups with care."
    ),
    Code.CLOCK_ERROR: mark(
        "Ask for more output tokens or a longer prompt, so that each window is long beside the clock "
        "error, and run again."
    ),
    Code.SOURCES_DISAGREE: mark(
        "Take neither for exact: see both in the Energy section, ask for a longer energy.window, "
        "and look whether the meter's driver is known to count wrong."
    ),
    Code.ENERGY_BOUND: mark(
        "Ask for longer windows (--set energy.window=10s); the Energy section says what made the bound wide."
    ),
    Code.RANDOM_WEIGHTS: mark(
        "Nothing for speed and memory of a dense model; for routed experts, for speculation and for "
        "text take pretrained weights (model.weights: pretrained)."
    ),
}

STATUS_REMEDIES: Final[Mapping[Status, str]] = {
    "failed": mark("See the traceback in events.jsonl and the end of worker.log, mend it, and run again."),
    "oom": mark(
        "Take a smaller batch, context, dtype or model, or a device with more memory: `tokbench fit` tells which."
    ),
    "timeout": mark("Raise budget.trial (or budget.open for loading and compiling), or ask for fewer tokens."),
    "skipped": mark("Finish the run with --resume, or give it more time (--set budget.total=20min)."),
    "planned": mark("Finish the run with --resume."),
}
"""For cells without a number; `ok` has none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Advice:
    """One reason why a cell is not plainly valid, and what to do about it."""

    code: str
    """The name of a Code, or the status of a cell without a number."""
    meaning: str
    weight: str
    """What the reason does to the cell: invalid, suspect or note."""
    remedy: str
    criterion: str | None
    """From where on the code applies; None for the status of a cell without a number."""


def advise(cell: CellResult) -> tuple[Advice, ...]:
    """Every reason of one cell with what to do; none where it is plainly valid."""
    if cell.status != "ok":
        meaning = cell.status_reason or t("no reason given")
        return (Advice(cell.status, meaning, "invalid", STATUS_REMEDIES[cell.status], None),)
    return tuple(map(advise_on, cell.validity.reasons))


def advise_on(code: Code) -> Advice:
    """What one code means, from where on it applies, and what to do."""
    return Advice(code.name, code.value, weight_of(code), REMEDIES[code], CRITERIA[code])


def is_all_valid(results: Results) -> bool:
    """Whether the run has cells and every one is valid; a run without any proves nothing."""
    return bool(results.cells) and all(cell.validity.verdict == "valid" for cell in results.cells)
