"""A worker's part in cells of requests: warm-up and one repetition. Static batches are `load.run_static_batch`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tokbench.measure import load
from tokbench.measure.engines import Request, RequestEngine
from tokbench.measure.messages import RunTrial, WarmUp
from tokbench.measure.workloads import make_prompts
from tokbench.record.observations import Event, WindowClosed, WindowOpened
from tokbench.record.spec import CellSpec
from tokbench.stats import SteadyRule

WARMUP_SEED_STEP = 1_000_003


def warm_up(
    engine: RequestEngine, spec: CellSpec, seed: int, command: WarmUp, rule: SteadyRule
) -> Iterator[Event | bool]:
    """Send requests until they are steady or the cap is reached; whether they became steady comes last."""
    count = spec.load.concurrency if spec.load.kind == "closed" else 1
    window_id = f"{command.trial_id}/warmup"

    def rounds() -> Iterator[list[Request]]:
        for number in itertools.count(1):  # prompts of their own: a server may remember those it has seen
            yield make_requests(engine, spec, count, f"{window_id}-{number}", seed + WARMUP_SEED_STEP * number)

    yield WindowOpened(trial_id=command.trial_id, window_id=window_id, kind="warmup", at_ns=engine.now())
    is_steady = load.warm_up_requests(engine, rounds(), rule, command.cap_s)
    yield WindowClosed(trial_id=command.trial_id, window_id=window_id, at_ns=engine.now())
    yield is_steady


def make_requests(engine: RequestEngine, spec: CellSpec, count: int, name: str, seed: int) -> list[Request]:
    """So many requests with prompts of the cell's workload."""
    prompts = make_prompts(spec.workload, count, None, engine.vocabulary, seed)
    return [Request(f"{name}-{n}", prompt, spec.workload.output_tokens) for n, prompt in enumerate(prompts)]


def run_trial(engine: RequestEngine, spec: CellSpec, command: RunTrial) -> Iterator[Event]:
    """One repetition, closed loop or arrivals."""
    trial_id, seed = command.trial_id, command.seed
    if spec.load.kind == "closed":
        requests = make_requests(engine, spec, spec.load.requests, trial_id, seed)
        yield from load.run_closed(engine, spec.load, requests, trial_id)
    elif spec.load.kind == "poisson":
        arrivals_ns = load.poisson_arrivals_ns(spec.load, seed)
        requests = make_requests(engine, spec, len(arrivals_ns), trial_id, seed)
        yield from load.run_arrivals(engine, arrivals_ns, requests, trial_id)
