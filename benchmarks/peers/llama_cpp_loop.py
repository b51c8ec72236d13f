"""llama.cpp's server asked directly, beside tokbench's engine on the same server: other requests, one outside clock.

    .peers/llama_cpp/bin/python -m benchmarks.peers.llama_cpp_loop [--repetitions 5]

In turn (ABBA), each on a prompt of its own: a plain call of `handle_completions` from this thread, and a request
through the engine with its thread, queue and parsing. Both are timed from outside, from before the request until all
of its answer is here; decode speed is by the caller's stamps in the one case, by the engine's in the other. It prints
JSON.
`llama_cpp_own.py` sets two clocks on one request beside each other, which is near 1 whatever the engine costs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.llama_cpp_own import open_engine

from tokbench.measure.engines import Request
from tokbench.measure.engines.llama_cpp.engine import LlamaCppEngine
from tokbench.measure.engines.llama_cpp.server import asking
from tokbench.measure.workloads import make_prompts
from tokbench.record.spec import WorkloadSpec

Counts = Sequence[tuple[float, int]]
"""When, in seconds, how many tokens there were."""


def speed(counts: Counts, begun_s: float, ended_s: float, output_tokens: int) -> dict[str, float]:
    """One request: its first token, its decode speed by the stamps, its end-to-end speed by the clock outside.

    Raises:
        RuntimeError: it did not bring the tokens that were asked for.
    """
    if not counts or counts[-1][1] != output_tokens:
        raise RuntimeError(f"{counts[-1][1] if counts else 0} tokens where {output_tokens} were asked for")
    last_s = next(at_s for at_s, tokens in counts if tokens == output_tokens)
    first_s, first_tokens = counts[0]
    return {
        "ttft_s": first_s - begun_s,
        "decode_tokens_per_s": (output_tokens - first_tokens) / (last_s - first_s),
        "e2e_tokens_per_s": output_tokens / (ended_s - begun_s),
    }


def ask_directly(server: Any, prompt: tuple[int, ...], output_tokens: int) -> dict[str, float]:
    """One call of the library from this thread; what it said is parsed when the clock has stopped."""
    heard: list[tuple[float, str]] = []

    def hear(text: str) -> bool:
        heard.append((time.monotonic(), text))
        return False

    body = json.dumps(asking(prompt, output_tokens))
    begun_s = time.monotonic()
    server.handle_completions(body, hear)
    ended_s = time.monotonic()
    said = [(at_s, json.loads(text)) for at_s, text in heard]
    counts = [(at_s, int(each["timings"]["predicted_n"])) for at_s, each in said if "timings" in each]
    return speed(counts, begun_s, ended_s, output_tokens)


def ask_engine(engine: LlamaCppEngine, name: str, prompt: tuple[int, ...], output_tokens: int) -> dict[str, float]:
    """One request through tokbench's engine."""
    chunks = []
    begun_s = time.monotonic()
    engine.submit(Request(name, prompt, output_tokens))
    while not chunks or chunks[-1].finish_reason is None:
        chunks += engine.poll(engine.now() + 100_000_000)
    ended_s = time.monotonic()
    counts, tokens = [], 0
    for chunk in chunks:
        tokens += chunk.tokens
        counts.append((chunk.at_ns * 1e-9, tokens))
    return speed(counts, begun_s, ended_s, output_tokens)


def main() -> None:
    """Measure and print; the first request of each side warms up and is left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repetitions", 5), ("prompt-tokens", 128), ("output-tokens", 64), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    engine = open_engine(given.threads, given.seed)
    workload = WorkloadSpec(prompt_tokens=given.prompt_tokens, output_tokens=given.output_tokens)
    prompts = make_prompts(workload, 2 * (given.repetitions + 1), None, engine.vocabulary, given.seed)
    own, ours = [], []
    for number, prompt in enumerate(prompts):
        if number % 4 in (0, 3):
            own.append(ask_directly(engine.native_server, prompt, given.output_tokens))
        else:
            ours.append(ask_engine(engine, str(number), prompt, given.output_tokens))
    engine.close()
    found = {
        "xllamacpp": importlib.metadata.version("xllamacpp"),
        "threads": given.threads,
        "own": {"repetitions": own[1:]},
        "engine": {"repetitions": ours[1:]},
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
