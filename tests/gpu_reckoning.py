"""What a step of scripts/gpu_check.sh is reckoned to take on an H200: loads, compilation, visits. It measures nothing.

Every rate is a round figure from elsewhere, none was read on that card by tokbench: the sums say which step is too long
for its call, and are no prediction of a result.
"""

from __future__ import annotations

from tokbench.arithmetic import flops_per_token, precision_on, tokens_per_round, weight_bytes
from tokbench.measure.energy_trial import window_lengths
from tokbench.measure.order import tiers
from tokbench.measure.plan import GroupPlan, Plan, PlannedCell
from tokbench.record.catalog import shape_from_config
from tokbench.record.facts import DeviceFacts
from tokbench.record.spec import CellSpec

H200 = DeviceFacts(
    kind="cuda",
    name="NVIDIA H200",
    index=0,
    memory_bytes=150_754_820_096,
    free_memory_bytes=149_900_000_000,
    power_limit_w=700.0,
    driver_version="580.159.04",
    runtime_version="13.0",
    foreign_processes=0,
)
"""143,771 MiB, as read there (device notes, 2026-10-27); what its context takes is an assumption."""
READ_BYTES_PER_S = 0.8 * 4.0e12
"""A decode step; a copy was seen to move 4.3e12 there (device notes, 2026-10-28)."""
FLOPS_PER_S = 4e14
"""A prefill: half of the rate of a large product there (device notes, 2026-10-28)."""
START_S, REPORT_S = 8.0, 15.0
OPEN_S = 16.0
"""A worker: Python, torch, transformers, the device's context."""
DRAWN_BYTES_PER_S = 20e9
PINNED_BYTES_PER_S = 2e9
"""Experts into host memory, whose pages are made and locked meanwhile."""
CEILINGS_S = 6.0
COMPILE_S, LAYER_S, EXPERTS_LAYER_S = 12.0, 1.2, 1.6
"""A compiled pass: so much, and so much a layer. 32 layers: 10 s of one core for dynamo alone and 16 with AOT on two
shared EPYC cores (torch 2.13, 2026-11-22), as much again for inductor, and the search of block sizes."""
AGAIN = 0.7
"""Another shape of the same pass: what was generated and searched for one is found again in part."""
ATTENTION_S = 5.0
EAGER_LAYER_S, LOOPED_LAYER_S = 0.0006, 0.003
"""A layer of an eager step waits for the host; one with experts in host memory for their copies too."""
WARMUP_S = 2.0
ROUND_STEPS = 1.33
VERIFY_COST_S, PARTS_S = 9.0, 3.0


def reckon_s(plan: Plan) -> float:
    """Seconds of a first pass over all cells with the least repetitions, from the command to its report."""
    dtypes = {group.spec.model.dtype for group in plan.groups}
    rounds = 1 if plan.is_interleaved else len(tiers(plan.cells()))
    loads = rounds * sum(_load_s(group, plan) for group in plan.groups)
    groups = sum(_compile_s(group) + sum(_visit_s(cell, group, plan) for cell in group.cells) for group in plan.groups)
    return START_S + REPORT_S + CEILINGS_S * len(dtypes) + loads + groups


def _load_s(group: GroupPlan, plan: Plan) -> float:
    assert group.model is not None
    shape = shape_from_config(group.model.config, group.model.name)
    drawn = weight_bytes(shape, precision_on(group.spec.model.dtype, plan.device.kind))
    is_offloaded = group.spec.engine.options.get("resident_experts", 1.0) != 1.0
    return OPEN_S + drawn / DRAWN_BYTES_PER_S + (drawn / PINNED_BYTES_PER_S if is_offloaded else 0.0)


def _layers(group: GroupPlan) -> int:
    assert group.model is not None
    layers = group.model.config["num_hidden_layers"]
    assert isinstance(layers, int)
    return layers


def _has_experts(group: GroupPlan) -> bool:
    assert group.model is not None
    return any(group.model.config.get(name) for name in ("num_experts", "n_routed_experts", "num_local_experts"))


def _compile_s(group: GroupPlan) -> float:
    """All passes of a group: one for each shape of a step, a prefill, a verification and two kinds of draft."""
    if group.spec.engine.mode != "compiled":
        return 0.0
    one_s = COMPILE_S + _layers(group) * (EXPERTS_LAYER_S if _has_experts(group) else LAYER_S)
    specs = [cell.cell.spec for cell in group.cells]
    steps = {(_rows(spec), spec.workload.prompt_tokens, spec.workload.output_tokens) for spec in specs}
    verified = {(_rows(spec), spec.speculation.gamma) for spec in specs if spec.speculation != "none"}
    prefilled = {
        (_rows(spec), spec.workload.prompt_tokens) for spec in specs if _compiles_prefill(spec) and not verified
    }
    times = len(steps) + len(verified) + len(prefilled)
    timed = 0.0 if group.spec.engine.attention else ATTENTION_S * (len(steps) + len(verified))
    drafts_s = len(verified) * 2 * (COMPILE_S / 2 + 16 * LAYER_S / 2)
    return one_s * (1 + AGAIN * (times - 1)) + timed + drafts_s


def _compiles_prefill(spec: CellSpec) -> bool:
    chunk = spec.engine.options.get("prefill_chunk") or spec.workload.prompt_tokens or 0
    return spec.engine.options.get("compile_prefill") != "never" and _rows(spec) * int(chunk) <= 1024


def _rows(spec: CellSpec) -> int:
    assert spec.load.kind == "static_batch"
    return spec.load.static_batch


def _visit_s(planned: PlannedCell, group: GroupPlan, plan: Plan) -> float:
    spec, stop = planned.cell.spec, plan.config.run.stop
    trial_s = _trial_s(planned, group)
    experiment_s = 0.0
    if spec.experiment != "none":
        experiment_s = VERIFY_COST_S if spec.experiment.kind == "verify_cost" else PARTS_S
    repeats = 3 * trial_s if spec.engine.check_repeat else 0.0
    total = WARMUP_S + repeats + stop.min_repetitions * (trial_s + experiment_s)
    if plan.config.run.energy == "off":
        return total
    return total + window_lengths("auto", None, is_gpu=True).total_s(trial_s, has_work=True)


def _trial_s(planned: PlannedCell, group: GroupPlan) -> float:
    """A prefill and all steps; rounds of drafting instead of steps, by the closed form, a third dearer than a step."""
    spec = planned.cell.spec
    assert planned.step_bytes is not None and spec.workload.prompt_tokens is not None and group.model is not None
    step_s = planned.step_bytes / READ_BYTES_PER_S
    if spec.engine.mode == "eager":
        is_offloaded = spec.engine.options.get("resident_experts", 1.0) != 1.0
        step_s = max(step_s, _layers(group) * (LOOPED_LAYER_S if is_offloaded else EAGER_LAYER_S))
    shape = shape_from_config(group.model.config, group.model.name)
    prompt = spec.workload.prompt_tokens
    prefill_s = flops_per_token(shape, prompt // 2) * _rows(spec) * prompt / FLOPS_PER_S
    rounds = float(spec.workload.output_tokens)
    if spec.speculation != "none":
        rounds *= ROUND_STEPS / tokens_per_round(float(spec.speculation.options["alpha"]), spec.speculation.gamma)
    return prefill_s + rounds * step_s + 0.1
