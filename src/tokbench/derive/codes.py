"""The reason codes: what each means, from where on it applies, what it does to a cell. What to do stands in `remedy`.

It judges nothing: `validity` judges cells, `disturbances` repetitions.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from tokbench.derive.words import mark, t

MIN_REPETITIONS = 3
"""Fewer give no interval worth the name."""
MIN_PROCESSES = 3
"""Fewer leave the variance between processes out of the interval, as `stats.MIN_BLOCKS` does.

Source: Kalibera and Jones, Rigorous Benchmarking in Reasonable Time, ISMM 2013: repeat at the highest level that
varies.
"""
CONTENDED_SHARE = 0.2
"""Foreign CPU time above this share of the usable cores disturbs a CPU measurement.

Source: shared/facts/engines.md, Contention, measured 2026-11-21: one foreign busy loop of two cores costs 30 to 85 %.
"""
BUSY_FREE_SHARE = 0.9
"""Less free memory at the run's start, and no process visible, is a card that somebody uses. Our choice."""
CLOCK_ERROR_SHARE = 0.01
"""A clock error above this share of a window spoils its duration. Our choice."""
MIN_CLOCK_ERROR_S = 1e-3
"""A clock error up to this is never spoken of. Our choice."""
CLOCK_SHARE = 0.03
"""How far a sampled clock may lie from the cell's median. Our choice: four steps of 15 MHz at 1980 MHz."""
MIN_CLOCK_SAMPLES = 3
"""Fewer samples have no median that one of them could lie away from."""
GPU_DRIFT_SHARE, CPU_DRIFT_SHARE = 0.03, 0.08
"""How far the sentinel's closing repetition may lie from its opening one. Our choice: wider on a CPU, whose repetitions
vary more."""


class Code(enum.Enum):
    """Why a cell is not plainly valid; the value is what a reader sees, in English."""

    TOO_FEW_REPETITIONS = mark("too few repetitions")
    SHARED_PROCESS = mark("fewer than three processes: the interval leaves out what differs between processes")
    UNSTEADY = mark("the warm-up never became steady")
    FOREIGN_LOAD = mark("other processes were on the device")
    FOREIGN_UNKNOWN = mark("other processes on the device cannot be seen from here")
    CONTENDED_CPU = mark("other processes used the CPU meanwhile")
    CONTENDED_HOST = mark("other processes used the host's CPU meanwhile; the work was on another device")
    THROTTLED = mark("the device slowed itself down (thermal or hardware)")
    POWER_CAPPED = mark("the device ran at its power limit: the speed is a sustained one")
    CLOCKS_MOVED = mark("the clocks moved while it was measured")
    SENTINEL_DRIFT = mark("the sentinel's speed changed from the opening to the closing of a block")
    ON_BATTERY = mark("the machine ran on battery")
    TOKEN_COUNTS = mark("token counts disagree with the request")
    DRAFT_COUNTS = mark("drafted, accepted and emitted tokens do not add up")
    ABOVE_ROOFLINE = mark("faster than the measured ceiling allows")
    ABOVE_UNIFORM_ROUTING = mark("faster than the measured ceiling allows if tokens were routed evenly to the experts")
    ABOVE_MATMUL_CEILING = mark("more operations per second, in decode or prefill, than the measured ceiling allows")
    ABOVE_DATASHEET = mark("faster than the device's datasheet allows")
    RECOMPILED = mark("a graph was compiled while measuring")
    NOT_INTERLEAVED = mark("its group was measured apart in time from the others")
    CLOCK_ERROR = mark("the clocks of host and device were tied too loosely for so short a window")
    SOURCES_DISAGREE = mark("energy: the counter and its second source disagree")
    ENERGY_BOUND = mark("energy: the window was too short for a bound of 1 %")
    RANDOM_WEIGHTS = mark(
        "random weights: routing of experts, acceptance of drafts and all text are not a real model's"
    )


NOTES = frozenset(
    {
        Code.SHARED_PROCESS,
        Code.FOREIGN_UNKNOWN,
        Code.CONTENDED_HOST,
        Code.POWER_CAPPED,
        Code.NOT_INTERLEAVED,
        Code.SOURCES_DISAGREE,
        Code.ENERGY_BOUND,
        Code.RANDOM_WEIGHTS,
    }
)
"""Codes that are told but do not make a cell suspect; those of energy leave its speed as good as it was."""
INVALIDATING = frozenset(
    {
        Code.TOKEN_COUNTS,
        Code.DRAFT_COUNTS,
        Code.ABOVE_ROOFLINE,
        Code.ABOVE_MATMUL_CEILING,
        Code.ABOVE_DATASHEET,
        Code.RECOMPILED,
    }
)
DISTURBING = (Code.UNSTEADY, Code.FOREIGN_LOAD, Code.CONTENDED_CPU, Code.THROTTLED, Code.CLOCKS_MOVED)
"""Codes that a single repetition can earn. A power cap is none of them: what it leaves is the sustained speed."""

_ABOVE_1 = mark("the used ratio exceeds 1 with its whole 95 % interval")
CRITERIA: Final[Mapping[Code, str]] = {
    Code.TOO_FEW_REPETITIONS: t("fewer than {least} repetitions came to their end", least=MIN_REPETITIONS),
    Code.SHARED_PROCESS: t("its repetitions come from fewer than {least} worker processes", least=MIN_PROCESSES),
    Code.UNSTEADY: mark(
        "the warm-up before one of its repetitions ended by its time limit (stop.warmup_cap), not by the rule of "
        "steadiness"
    ),
    Code.FOREIGN_LOAD: t(
        "the driver lists a process that is not ours, or, where none can be seen, less than {share:.0%} of the card's "
        "memory was free at the start",
        share=BUSY_FREE_SHARE,
    ),
    Code.FOREIGN_UNKNOWN: mark("the driver does not list processes here, as in most containers"),
    Code.CONTENDED_CPU: t(
        "CPU time of others above {share:.0%} of the usable cores while its repetitions ran, and the CPU is the device",
        share=CONTENDED_SHARE,
    ),
    Code.CONTENDED_HOST: t(
        "CPU time of others above {share:.0%} of the usable cores while its repetitions ran, and a GPU is the device",
        share=CONTENDED_SHARE,
    ),
    Code.THROTTLED: mark("a sample within a repetition holds a thermal or hardware clock-event reason"),
    Code.POWER_CAPPED: mark("a sample within a repetition holds the clock-event reason sw_power_cap"),
    Code.CLOCKS_MOVED: t(
        "a clock sampled within its windows lies more than {share:.0%} from the median of all of them; samples at the "
        "power limit are left out, that is POWER_CAPPED",
        share=CLOCK_SHARE,
    ),
    Code.SENTINEL_DRIFT: t(
        "in a block that holds the cell the sentinel's closing speed lies more than {gpu:.0%} (GPU) or {cpu:.0%} (CPU) "
        "from its opening one",
        gpu=GPU_DRIFT_SHARE,
        cpu=CPU_DRIFT_SHARE,
    ),
    Code.ON_BATTERY: mark("the system reports that it ran on battery"),
    Code.TOKEN_COUNTS: mark("a repetition of a static batch made another number of output tokens than asked"),
    Code.DRAFT_COUNTS: mark(
        "in a repetition with drafts the rounds of a row are missing, a round accepted more than it drafted or gave "
        "another number of tokens than accepted + 1 (fewer only in a row's last), or all together are not the tokens "
        "that were asked for"
    ),
    Code.ABOVE_ROOFLINE: t("bandwidth_used_ratio: {above}", above=t(_ABOVE_1)),
    Code.ABOVE_UNIFORM_ROUTING: t("bandwidth_used_ratio of a model that routes to experts: {above}", above=t(_ABOVE_1)),
    Code.ABOVE_MATMUL_CEILING: t("flops_used_ratio or prefill_flops_used_ratio: {above}", above=t(_ABOVE_1)),
    Code.ABOVE_DATASHEET: t("one of the nominal ratios: {above}", above=t(_ABOVE_1)),
    Code.RECOMPILED: mark("the engine saw a graph compiled within a measured window"),
    Code.NOT_INTERLEAVED: mark("not all groups fit in memory side by side, so that each was measured by itself"),
    Code.CLOCK_ERROR: t(
        "the error of tying the clocks is above {share:.0%} of the window and above {least_ms:g} ms",
        share=CLOCK_ERROR_SHARE,
        least_ms=MIN_CLOCK_ERROR_S * 1e3,
    ),
    Code.SOURCES_DISAGREE: mark(
        "an energy trial's counter lies more than 5 % from its second source over the same time"
    ),
    Code.ENERGY_BOUND: mark("the quantisation bound of an energy window, decode or prefill, is above 1 %"),
    Code.RANDOM_WEIGHTS: mark("the config says `weights: random`"),
}
"""From where on each code applies; the reasons for the numbers stand at the constants above."""


def weight_of(code: Code) -> str:
    """What the code does to a cell: invalid, suspect or note."""
    return "invalid" if code in INVALIDATING else "note" if code in NOTES else "suspect"
