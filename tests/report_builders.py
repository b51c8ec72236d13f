"""What a report is tested with: published figures, a run that shows a bit of everything, the golden record."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from builders import Script
from scripted_facts import LLAMA_8B, ceilings
from tokbench.derive.evaluate import evaluate
from tokbench.derive.published import PublishedFigure
from tokbench.derive.report.write import write_report
from tokbench.record.run import read_run
from tokbench.record.spec import StopSpec

GOLDEN = Path(__file__).parent / "golden"


def figure(
    vendor: str = "cerebras",
    value: float = 1800.0,
    model: str = LLAMA_8B,
    total_params_b: float = 8.03,
    published: str = "2024-08-27",
    speculation: Literal["none", "speculative-decoding"] | None = None,
    precision: str | None = None,
    excludes_ttft: bool | None = None,
    notes: str | None = None,
) -> PublishedFigure:
    """One published decode speed."""
    return PublishedFigure(
        id=f"{vendor}-{published}-{value:.0f}",
        vendor=vendor,
        system=f"{vendor} cloud",
        deployment="cloud-endpoint",
        model=model,
        total_params_b=total_params_b,
        active_params_b=total_params_b,
        precision=precision,
        speculation=speculation,
        metric="decode_tokens_per_s",
        value=value,
        unit="tokens/s",
        excludes_ttft=excludes_ttft,
        concurrency=1,
        measured_by="vendor",
        is_primary=True,
        published=published,
        read_on="2026-11-21",
        source_url=f"https://example.org/{vendor}",
        source_title=f"Figures of {vendor}",
        notes=notes,
    )


FIGURES = (figure(), figure(value=2200.0, published="2026-05"), figure("groq", 751.0, precision="8-bit"))
VENDORS = ("cerebras", "groq")


def regenerate_goldens() -> None:
    """Write the golden record and its report anew; read the diff."""
    rich_script().write(GOLDEN / "run")
    (GOLDEN / "report.md").write_text(golden_report(), encoding="utf-8")


def golden_report() -> str:
    """The Markdown report of the golden record, as it is now."""
    with tempfile.TemporaryDirectory() as folder:
        results = evaluate(read_run(GOLDEN / "run"), "golden")
        paths = write_report([results], FIGURES, Path(folder), vendors=VENDORS)
        return paths.markdown.read_text(encoding="utf-8")


def rich_script() -> Script:
    """A run that shows a bit of everything: two modes, two batches, a failure, a skipped cell, an absent meter."""
    script = Script(ceiling=ceilings(), stop=StopSpec(rel_ci=0.05, min_repetitions=5, max_repetitions=20, blocks=3))
    eager, compiled = script.cell(), script.cell(mode="compiled")
    eager_4, compiled_4 = script.cell(static_batch=4), script.cell(mode="compiled", static_batch=4)
    too_large = script.cell(static_batch=64)
    late = script.cell(mode="compiled", static_batch=64)
    for cell_id in (eager, compiled, eager_4, compiled_4):
        script.prepare(cell_id)
    for index in range(6):
        worker = f"worker-{1 + index // 2}"
        script.block(index, eager, kept="a block is shorter than starting its processes" if index % 2 else None)
        script.sentinel(eager, index, step_s=0.02 * (1 + index / 100), worker=worker)
        for cell_id, step_s in ((eager, 0.02), (compiled, 0.0125), (eager_4, 0.021), (compiled_4, 0.013)):
            script.trial(cell_id, step_s=step_s * (1 + index / 100), prefill_s=0.05, worker=worker)
        script.sentinel(eager, index, step_s=0.02 * (1.01 + index / 100), worker=worker)
    script.fail(too_large, "oom", "CUDA out of memory: tried to allocate 12 GiB")
    script.skip(late, "skipped", "the budget was used up")
    script.identity(eager)
    script.identity(compiled, first_divergence=17, top2_gap=0.0625)
    script.meter_absent("nvml", "no cumulative energy counter on this card", "a Volta or later card has one")
    script.end()
    return script
