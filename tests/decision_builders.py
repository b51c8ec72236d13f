"""A sweep over static batches whose every number can be told by hand, and rows of vendors to set beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from builders import Script
from scripted_facts import GPU, LLAMA_8B, ceilings
from tokbench.derive.decision import Decision, Market, decide
from tokbench.derive.decision.rents import Rent
from tokbench.derive.evaluate import Results, evaluate
from tokbench.derive.published import PublishedFigure
from tokbench.record.cost import CostSpec
from tokbench.record.facts import DeviceFacts

PREFILL_S = 0.5
STEPS_S: Mapping[int, float] = {1: 0.00625, 2: 0.008, 4: 0.016, 8: 0.04, 16: 0.1}
"""Static batch to seconds of a step: 160, 125, 62.5, 25 and 10 tokens/s per user."""
READ_BYTES_PER_S = 2.8e12
"""Of 16.06e9 bytes of weights, the input embedding of 1.05e9 left out: at most 187 tokens/s for one stream."""
INCLUDED = CostSpec(usd_per_hour=3.6, electricity_included=True)


def sweep(
    steps_s: Mapping[int, float] = STEPS_S,
    prefill_s: float = PREFILL_S,
    weights: Literal["pretrained", "random"] = "pretrained",
    device: DeviceFacts = GPU,
    mode: str = "eager",
    script: Script | None = None,
    parameters: int = 8_030_261_248,
) -> Script:
    """Three repetitions that agree, each in a process of its own, at every batch; 100 prompt and 5 output tokens."""
    made = Script(device=device, ceiling=ceilings(READ_BYTES_PER_S)) if script is None else script
    for batch, step_s in steps_s.items():
        cell_id = made.cell(static_batch=batch, weights=weights, mode=mode, parameters=parameters)
        for worker in ("a", "b", "c"):
            made.trial(cell_id, step_s=step_s, prefill_s=prefill_s, worker=f"{mode}-{worker}")
    return made


def results_of(script: Script, folder: Path, prices: CostSpec | None = None) -> Results:
    """The evaluated run, reckoned at the prices."""
    run = script.run(folder)
    run.prices = prices
    return evaluate(run, "script")


def decision_of(
    script: Script,
    folder: Path,
    *figures: PublishedFigure,
    prices: CostSpec | None = None,
    rents: Mapping[str, Rent] | None = None,
    vendors: tuple[str, ...] = ("acme",),
) -> Decision:
    """The decision of one run."""
    return decide([results_of(script, folder, prices)], Market(figures, vendors, rents or {}))


def row(name: str, metric: str, value: float, **changes: object) -> PublishedFigure:
    """One published row of acme for our model, read on the day after the script's run."""
    units = {"decode_tokens_per_s": "tokens/s", "ttft_s": "s"}
    return PublishedFigure.model_validate(
        {
            "id": name,
            "vendor": "acme",
            "system": "Acme One",
            "deployment": "cloud-endpoint",
            "model": LLAMA_8B,
            "total_params_b": 8.0,
            "metric": metric,
            "value": value,
            "unit": units.get(metric, "USD/1M tokens"),
            "concurrency": 1,
            "measured_by": "vendor",
            "is_primary": True,
            "published": "2026-10-01",
            "read_on": "2026-11-22",
            "source_url": "https://example.org/acme",
            "source_title": "Acme",
            **({"available_until_url": "https://example.org/end"} if "available_until" in changes else {}),
            **changes,
        }
    )


def offer(out: float = 2.0, entry: float = 0.5, name: str = "acme", **changes: object) -> tuple[PublishedFigure, ...]:
    """List prices of a vendor: a million output tokens and a million input tokens."""
    return (
        row(f"{name}-out", "price_usd_per_million_output_tokens", out, **{"vendor": name, **changes}),
        row(f"{name}-in", "price_usd_per_million_input_tokens", entry, **{"vendor": name, **changes}),
    )
