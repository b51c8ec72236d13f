"""Writes what was measured: engines.json (everything), engines.md (the tables), engines.png (the decode speeds)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines_cpu.readings import RATES
from benchmarks.engines_cpu.rounds import Finished
from benchmarks.engines_cpu.tables import (
    CAPTION,
    Measured,
    conditions_table,
    fastest,
    gap_table,
    judge_floor,
    main_table,
    over,
    over_own,
    own_table,
    precision_of,
)
from tokbench.derive.report.canvas import OKABE_ITO, STYLE, open_canvas, print_canvas
from tokbench.stats import MIN_BLOCKS

READING = """\
Intervals are 95 %, over rounds: in a round every row runs once, in a fresh process, in an order drawn anew. Ratios are
paired by round. Workload: SmolLM2-135M-Instruct, one stream, 128 tokens in, 64 out, greedy unless a row says otherwise.
"GB/s" is the weights' bytes times the decode rate, so that float32 and 4-bit rows can be told apart; in 4 bits
a sixth of the bytes is read for a token, and a ratio over weights of another precision is no ratio of engines alone."""
FEW = f"""\
**Fewer than {MIN_BLOCKS} rounds: intervals rest on repetitions in one process, and no ratio is paired by round.**"""
THREATS = """\
- A peer's own bench runs with its own defaults (environment, threads, launcher); rows of tokbench and own loops run in
  the environment of a tokbench worker (OMP_WAIT_POLICY=passive, GOMP_SPINCOUNT=30000). The column of notes says which.
- llama-bench decodes random tokens without sampling; `vllm bench latency` tells whole requests alone.
- `own-llama_cpp` is two clocks on one request: it shows that our stamps miss nothing, and says nothing of what our
  thread costs; `own-llama_cpp-loop` can. Both share one server, as those of vLLM share one vLLM engine. Own loops leave
  out what tokbench does outside a request (sampler, parent).
- The float32 weights come of the 4-bit file: right for speed, not for quality. One machine, one model, one stream."""
COLOURS = {"tokbench": OKABE_ITO[0], "peer": OKABE_ITO[4], "own": OKABE_ITO[2]}
WORDS = {"tokbench": "tokbench", "peer": "the peer's own bench", "own": "the library's own loop"}


def write_all(out: Path, of: Mapping[str, Measured], done: Sequence[Finished], facts: Mapping[str, Any]) -> None:
    """All three files; the same rounds give the same bytes."""
    found = {
        **facts,
        "rows": {name: _summary(item, of) for name, item in of.items()},
        "raw": [dataclasses.asdict(item) for item in done],
    }
    (out / "engines.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "engines.md").write_text(markdown(of, done, facts), encoding="utf-8")
    if any(item.estimate(RATES[0]) for item in of.values()):
        (out / "engines.png").write_bytes(draw(of))


def _summary(item: Measured, of: Mapping[str, Measured]) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": item.row.kind, "engine": item.row.engine, "note": item.row.note}
    for name in (*RATES, "ttft_s"):
        estimate = item.estimate(name)
        if estimate is not None:
            found[name] = dataclasses.asdict(estimate)
    compared = over_own(item)
    if compared:
        found["tokbench_over_own"] = {
            name: {
                **dataclasses.asdict(ratio.ratio),
                "floor": None if item.row.is_one_request else judge_floor(ratio),
            }
            for name, ratio in compared.items()
        }
    best = None if item.rate is None else fastest(of, precision_of(item, of), item.rate)
    ratio = None if best is None or item.rate is None else over(item, best, item.rate)
    if ratio is not None and best is not None:
        found["over_fastest"] = {"row": best.row.name, "rate": item.rate, **dataclasses.asdict(ratio.ratio)}
    if item.reasons:
        found["reasons"] = item.reasons
    return found


def markdown(of: Mapping[str, Measured], done: Sequence[Finished], facts: Mapping[str, Any]) -> str:
    """The report."""
    loads = [item.load_average[0] for item in done]
    spans = f"{done[0].utc} to {done[-1].utc}" if done else "nothing was run"
    machine = facts["machine"]
    head = [
        "# Engines on a CPU",
        f"`{facts['command']}`, {spans}; {machine['cpu']}, {facts['threads']} cores, seed {facts['seed']}; load "
        f"average at the rows' starts {min(loads, default=0):.2f} to {max(loads, default=0):.2f}.",
        READING,
        "![decode speeds](engines.png)",
    ]
    sections = (
        ("The table", main_table(of)),
        ("tokbench over the same library's own loop", [*own_table(of), "", *CAPTION.splitlines()]),
        ("The gap and what closes it", gap_table(of)),
        ("Conditions that differ", conditions_table(of)),
        ("Threats", THREATS.splitlines()),
    )
    failures = [f"- round {item.round}, {item.row}: {item.reason}" for item in done if item.reason is not None]
    if len({item.round for item in done}) < MIN_BLOCKS:
        head.append(FEW)
    parts = [*head, *(f"## {title}\n\n" + "\n".join(lines) for title, lines in sections)]
    if failures:
        parts.append("## Rows that failed\n\n" + "\n".join(failures))
    return "\n\n".join(parts) + "\n"


def draw(of: Mapping[str, Measured]) -> bytes:
    """Decode tokens/s of every row that tells it, fastest on top; whose it is by colour and hatch, intervals drawn."""
    import matplotlib

    matplotlib.use("Agg")
    shown = [(item, item.estimate(RATES[0])) for item in of.values()]
    bars = sorted(((item, found) for item, found in shown if found is not None), key=lambda pair: pair[1].value)
    hatches = {"tokbench": "", "peer": "//", "own": ".."}
    with matplotlib.rc_context({**STYLE, "font.size": 19}):
        canvas, axes = open_canvas(1.9 + 0.52 * len(bars))
        for place, (item, found) in enumerate(bars):
            kind = item.row.kind
            label = WORDS[kind] if WORDS[kind] not in axes.get_legend_handles_labels()[1] else None
            axes.barh(place, found.value, color=COLOURS[kind], hatch=hatches[kind], edgecolor="white", label=label)
            end = found.value
            if found.low is not None and found.high is not None:
                axes.plot((found.low, found.high), (place, place), color="black", linewidth=2.5, solid_capstyle="butt")
                end = found.high
            axes.annotate(f"{found.value:.1f}", (end, place), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(bars)), [f"{item.row.name}, {_short(precision_of(item, of))}" for item, _ in bars])
        axes.set_xlabel("decode tokens/s, 95 % interval")
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        canvas.legend(loc="outside upper center", fontsize=16)
        return print_canvas(canvas, "engines").png


def _short(precision: str) -> str:
    return precision.partition(" ")[0]
