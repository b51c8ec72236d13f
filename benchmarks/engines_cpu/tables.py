"""The tables: what the rounds say of each row, of tokbench over the libraries' own loops, and of the gaps. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from benchmarks.engines_cpu.readings import RATES, Reading
from benchmarks.engines_cpu.rounds import Finished
from benchmarks.engines_cpu.rows import Row, closing_command
from tokbench.stats import MIN_BLOCKS, Comparison, Estimate, compare, estimate_blocks
from tokbench.units import format_number

Blocks = list[list[float]]
FLOOR = 0.95
Floor = Literal["shown", "broken", "not shown"]
CAPTION = f"""\
Floor: tokbench keeps at least {FLOOR} of the library's own speed. *shown*: the whole interval of the ratio is at or
above {FLOOR}; *broken*: all of it lies below; *not shown*: it holds values on both sides, or there are fewer than
{MIN_BLOCKS} rounds. A wide interval never passes. Two clocks on one request have no verdict: their ratio is near 1 by
construction."""
MEANINGS = {"decode_tokens_per_s": "decode", "e2e_tokens_per_s": "end to end"}


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """One row with all of its rounds."""

    row: Row
    rounds: tuple[Finished | None, ...]
    """By round; None where it has not been run."""

    def blocks(self, name: str, *, beside: bool = False) -> Blocks:
        """A quantity's repetitions by round; a round without it is empty."""
        sides = [None if item is None else item.reading for item in self.rounds]
        return [[] if side is None else (side.beside if beside else side.values).get(name, []) for side in sides]

    def estimate(self, name: str) -> Estimate | None:
        """None where no round has it."""
        blocks = self.blocks(name)
        return estimate_blocks(blocks, "") if any(blocks) else None

    @property
    def reading(self) -> Reading | None:
        """Of the first round that has one: what it tells besides numbers."""
        return next((item.reading for item in self.rounds if item is not None and item.reading is not None), None)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why rounds have no reading, each once."""
        return tuple(dict.fromkeys(item.reason for item in self.rounds if item is not None and item.reason is not None))

    @property
    def rate(self) -> str | None:
        """The rate that it tells: decode, else end to end."""
        return next((name for name in RATES if any(self.blocks(name))), None)


def gather(rows: Sequence[Row], done: Sequence[Finished]) -> dict[str, Measured]:
    """Rows by name, their rounds in order."""
    count = 1 + max((item.round for item in done), default=-1)
    found = {(item.row, item.round): item for item in done}
    return {row.name: Measured(row, tuple(found.get((row.name, each)) for each in range(count))) for row in rows}


def over(above: Measured, below: Measured, name: str) -> Comparison | None:
    """The first over the second, by round; None where a side has nothing."""
    a, b = below.blocks(name), above.blocks(name)
    return compare(a, b, paired=True) if any(a) and any(b) else None


def over_own(own: Measured) -> dict[str, Comparison]:
    """tokbench over a library's own loop in the same processes, for each rate that both tell."""
    sides = {name: (own.blocks(name), own.blocks(name, beside=True)) for name in RATES}
    return {
        name: compare(theirs, ours, paired=True) for name, (theirs, ours) in sides.items() if any(ours) and any(theirs)
    }


def judge_floor(found: Comparison) -> Floor:
    """The floor is shown where the whole interval is at or above it, broken where all of it lies below.

    A wide interval shows nothing, however good its middle; so does one over repetitions alone, which leaves out what
    differs from process to process.
    """
    low, high = found.ratio.low, found.ratio.high
    if low is None or high is None or found.basis == "repetitions":
        return "not shown"
    return "shown" if low >= FLOOR else "broken" if high < FLOOR else "not shown"


def precision_of(item: Measured, of: Mapping[str, Measured]) -> str:
    """The precision of the weights: that of the row of tokbench that runs the same ones."""
    known = [
        each.reading for each in (of.get(item.row.weights_of), item) if each is not None and each.reading is not None
    ]
    return next((str(reading.facts["precision"]) for reading in known if "precision" in reading.facts), "unknown")


def weight_bytes(item: Measured, of: Mapping[str, Measured]) -> float | None:
    """Bytes of the weights as the row of tokbench tells that runs the same ones; None where it was not run."""
    ours = of.get(item.row.weights_of)
    found = None if ours is None or ours.reading is None else ours.reading.facts.get("weight_bytes")
    return found if isinstance(found, int | float) else None


def fastest(of: Mapping[str, Measured], precision: str | None, name: str = RATES[0]) -> Measured | None:
    """The fastest row of tokbench, of one precision or of all."""
    ours = [each for each in of.values() if each.row.kind == "tokbench" and any(each.blocks(name))]
    ours = [each for each in ours if precision is None or precision_of(each, of) == precision]
    return max(ours, key=lambda each: _value(each, name), default=None)


def _value(item: Measured, name: str) -> float:
    found = item.estimate(name)
    if found is None:
        raise ValueError(f"{item.row.name} has no {name}")
    return found.value


def told(found: Estimate | None, digits: int = 3, factor: float = 1.0) -> str:
    """A value with its interval, or a dash."""
    if found is None:
        return "–"
    value = format_number(found.value * factor, digits)
    if found.low is None or found.high is None:
        return f"{value} (no interval, n {found.n})"
    ends = " to ".join(format_number(end * factor, digits) for end in (found.low, found.high))
    return f"{value} ({ends})"


def main_table(of: Mapping[str, Measured]) -> list[str]:
    """Every row of tokbench and of the peers, the loops by their own clocks too."""
    lines = [
        "| row | whose | version | weights | decode tokens/s | end to end tokens/s | TTFT, ms | weights read, GB/s "
        "| over tokbench's fastest of these weights |",
        "|---|---|---|---|--:|--:|--:|--:|--:|",
    ]
    return lines + [_line(item, of) for item in of.values() if any(each is not None for each in item.rounds)]


def _line(item: Measured, of: Mapping[str, Measured]) -> str:
    row, reading = item.row, item.reading
    whose = {"tokbench": "tokbench", "peer": "peer's own", "own": "library's own loop"}[row.kind]
    if reading is None or item.rate is None:
        return f"| {row.name} | {whose} | – | – | not measured: {_say_reasons(item)} | – | – | – | – |"
    rates = {name: item.estimate(name) for name in RATES}
    size = weight_bytes(item, of)
    read = told(rates[RATES[0]], factor=size * 1e-9) if size is not None and rates[RATES[0]] else "–"
    precision = precision_of(item, of)
    best = fastest(of, precision, item.rate)
    ratio = None if best is None else over(item, best, item.rate)
    against = "–" if ratio is None else f"{told(ratio.ratio)} {MEANINGS[item.rate]}"
    cells = (
        row.name,
        whose,
        _version(item, of),
        precision,
        *(told(rates[name]) for name in RATES),
        told(item.estimate("ttft_s"), factor=1e3),
        read,
        against if best is not item else "1 (it is)",
    )
    return f"| {' | '.join(cells)} |"


def _say_reasons(item: Measured) -> str:
    """In one cell of a table: a peer's last words may hold line breaks and bars."""
    return " ".join("; ".join(item.reasons).split()).replace("|", "/")[:160]


def _version(item: Measured, of: Mapping[str, Measured]) -> str:
    known = [each.reading.versions for each in (item, of.get(item.row.weights_of)) if each is not None and each.reading]
    versions = next((found for found in known if found), {})
    names = [name for name in versions if name.replace("-", "_") not in ("python", "numpy", "openvino_tokenizers")]
    return ", ".join(f"{name} {versions[name]}" for name in names[:2]) or "–"


def own_table(of: Mapping[str, Measured]) -> list[str]:
    """tokbench over the library's own loop, and whether the floor is shown; a line for each rate that both tell."""
    lines = [
        f"| library | own loop | what is compared | tokbench over it | rounds | floor of {FLOOR} |",
        "|---|---|---|--:|--:|---|",
    ]
    for item in of.values():
        if item.row.kind != "own":
            continue
        head = f"| {item.row.weights_of} | {item.row.note} |"
        found = over_own(item)
        if not found:
            reason = _say_reasons(item) or "not run"
            lines.append(f"{head} – | not measured: {reason} | – | – |")
        for name, ratio in found.items():
            rounds = sum(map(bool, item.blocks(name)))
            lines.append(f"{head} {MEANINGS[name]} | {told(ratio.ratio, 4)} | {rounds} | {_say_floor(item, ratio)} |")
    return lines


def _say_floor(item: Measured, ratio: Comparison) -> str:
    if item.row.is_one_request:
        return "no verdict: two clocks on one request"
    verdict = judge_floor(ratio)
    return f"**{verdict}**" if verdict == "broken" else verdict


def gap_table(of: Mapping[str, Measured]) -> list[str]:
    """The fastest engine over each other one, within a precision and over all, and the command that runs it."""
    lines = [
        "| slower | its weights | faster | its weights | faster over slower (decode) | the command that closes it |"
    ]
    lines += ["|---|---|---|---|--:|---|"]
    ours = [item for item in of.values() if item.row.kind == "tokbench" and any(item.blocks(RATES[0]))]
    for item in ours:
        own = precision_of(item, of)
        targets = [fastest(of, own), fastest(of, None)]
        for best in dict.fromkeys(each.row.name for each in targets if each is not None and each is not item):
            ratio = over(of[best], item, RATES[0])
            if ratio is not None and ratio.ratio.value > 1:
                lines.append(
                    f"| {item.row.name} | {own} | {best} | {precision_of(of[best], of)} | {told(ratio.ratio)} "
                    f"| `{closing_command(best)}` |"
                )
    return lines


def conditions_table(of: Mapping[str, Measured]) -> list[str]:
    """What differs from row to row."""
    lines = ["| row | cache type | attention | threads | build, launcher and the like |", "|---|---|---|--:|---|"]
    for item in of.values():
        if item.reading is None:
            continue
        facts = item.reading.facts
        attention = facts.get("attention_kernel", facts.get("flash_attention", "not told"))
        remark = "; ".join(str(part) for part in (item.row.note, facts.get("build")) if part) or "–"
        lines.append(
            f"| {item.row.name} | {facts.get('kv_dtype', 'not told')} | {attention} "
            f"| {facts.get('threads', 'its choice')} | {remark.replace('|', '/')} |"
        )
    return lines
