"""A hand loop over transformers beside our engine in the same process: `benchmarks.harness_vs_bare` with few pairs.

    python -m benchmarks.peers.transformers_own --mode compiled [--pairs 4] [--steps 63]

Prints JSON: decode tokens/s of the hand loop and of our engine in turn (ABBA), and the median ratio. Eager: the
shortest loop over the model with a growing cache. Compiled: torch.compile as its documentation shows it, on the stock
model with a static cache.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from collections.abc import Callable

from benchmarks.harness_vs_bare import PROMPT_TOKENS, HandLoop, bare_eager, harness_rate, open_engine, paired


def loops(mode: str, steps: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Our engine's rate and the hand loop's, over the same prompt."""
    import torch

    from tokbench.measure.engines import CellWork
    from tokbench.measure.workloads import make_prompts
    from tokbench.record.spec import WorkloadSpec

    engine = open_engine(mode)
    workload = WorkloadSpec(prompt_tokens=PROMPT_TOKENS, output_tokens=steps + 1)
    work = CellWork(make_prompts(workload, 1, engine.tokenizer, engine.vocabulary, 1), steps + 1)
    rows = engine.prepare(work).cache_rows
    ids = torch.tensor(work.prompts)
    ours = functools.partial(harness_rate, engine, work)
    if mode == "eager":
        return ours, functools.partial(bare_eager, engine._model, ids, steps)
    with torch.inference_mode():
        stock = HandLoop(open_engine("compiled", "sdpa", stream_weights=False)._model, ids, rows)
    return ours, functools.partial(stock.rate, steps)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=("eager", "compiled"), required=True)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=63)
    given = parser.parse_args()
    import torch
    import transformers

    ours, own = paired(*loops(given.mode, given.steps), given.pairs)
    found = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "mode": given.mode,
        "own": {"repetitions": [{"decode_tokens_per_s": rate} for rate in own]},
        "engine": {"repetitions": [{"decode_tokens_per_s": rate} for rate in ours]},
        "median_engine_over_own": statistics.median(a / b for a, b in zip(ours, own, strict=True)),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
