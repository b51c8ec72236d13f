"""One model over two CPU processes: the tokens of one, honest facts, and an end with a cause if a rank fails."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tiny_engines import request, run, work  # noqa: E402
from tokbench.errors import PlugError, TrialError  # noqa: E402
from tokbench.measure.engines import EngineRequest  # noqa: E402
from tokbench.measure.engines.transformers import open_engine, shards  # noqa: E402
from tokbench.measure.engines.transformers.engine import TransformersEngine  # noqa: E402
from tokbench.measure.engines.transformers.split_engine import SplitEngine  # noqa: E402
from tokbench.measure.messages import Command, OpenGroup, PrepareCell, RunTrial, Said  # noqa: E402
from tokbench.measure.worker_process import ProcessWorker  # noqa: E402
from tokbench.record.observations import FactsRead, OutputTokens, StepTrace  # noqa: E402
from tokbench.record.spec import CellSpec, WorkloadSpec  # noqa: E402

TWO = ("cpu", "cpu")


def split(asked: EngineRequest) -> EngineRequest:
    """The same over two processes."""
    return dataclasses.replace(asked, devices=TWO)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama as files, so that one process and two read the same weights."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tokbench.record.catalog import find_model

    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("weights")
    AutoModelForCausalLM.from_config(LlamaConfig(**find_model("tiny-llama").config)).save_pretrained(place)
    return place


@contextlib.contextmanager
def opened(asked: EngineRequest) -> Iterator[SplitEngine]:
    """An engine over two processes; what it told this process by the environment is taken back."""
    before = dict(os.environ)
    engine = open_engine(asked)
    assert isinstance(engine, SplitEngine)
    try:
        yield engine
    finally:
        engine.close()
        os.environ.clear()
        os.environ.update(before)


def rank_of(engine: SplitEngine) -> psutil.Process:
    """The process that holds the other half."""
    return psutil.Process(engine._group._followers[0].process.pid)


def tokens_of_one(asked: EngineRequest) -> Any:
    """What the same weights make in one process."""
    engine = TransformersEngine(asked)
    engine.prepare(work())
    found = run(engine, 23)
    engine.close()
    return found


@pytest.fixture(scope="class")
def pair(folder: Path) -> Iterator[SplitEngine]:
    """The mode eager over two processes, prepared for `work()`."""
    with opened(split(request(folder=folder))) as engine:
        engine.prepare(work())
        yield engine


class TestPair:
    """One pair of processes for all of these: a process may be in one group at a time."""

    def test_two_processes_make_the_tokens_of_one(self, pair: SplitEngine, folder: Path) -> None:
        alone = tokens_of_one(request(folder=folder))
        assert alone == run(pair, 23)
        assert len(set(alone[0])) > 5  # a loop that repeats one token would agree with anything

    def test_tokens_are_those_of_generate_on_the_same_ranks(self, pair: SplitEngine) -> None:
        found = pair.check_identity(24)
        assert found is not None
        assert (24, None) == (found.tokens_compared, found.first_divergence)

    def test_the_same_comes_out_twice(self, pair: SplitEngine) -> None:
        assert pair.check_repeat(8)[0].tokens_equal

    def test_bytes_are_those_of_both_processes(self, pair: SplitEngine, folder: Path) -> None:
        alone = TransformersEngine(request(folder=folder))
        whole, prepared = alone.model_facts, alone.prepare(work())
        copied = (2 * 2 + 1) * 64 * 4  # two norms a layer and the last one, of 64 float32 each
        assert whole.weight_bytes is not None
        assert (whole.parameters, whole.weight_bytes + copied) == (
            pair.model_facts.parameters,
            pair.model_facts.weight_bytes,
        )
        assert "1.28 kB" in (pair.model_facts.note or "")
        assert prepared.kv_bytes_allocated == pair.prepare(work()).kv_bytes_allocated
        alone.close()

    def test_every_matrix_is_held_in_halves(self, pair: SplitEngine) -> None:
        matrices = [parameter for parameter in pair._engine._model.parameters() if parameter.ndim == 2]
        assert matrices
        assert all(2 * shards.local(matrix).numel() == matrix.numel() for matrix in matrices)

    def test_the_notes_say_what_ran(self, pair: SplitEngine) -> None:
        assert "tensor parallel over 2 processes (gloo), 6 collectives per step" in pair.facts.notes
        assert "memory readings: of rank 0, then the largest of 2 ranks" in pair.facts.notes

    def test_as_many_collectives_run_in_a_step_as_the_notes_say(self, pair: SplitEngine) -> None:
        from torch.distributed.tensor.debug import CommDebugMode

        pair.rewind(0)
        pair.prefill()
        with CommDebugMode() as seen:
            list(pair.decode(1))
        assert pair._collectives == seen.get_total_counts() == 6

    def test_memory_is_read_of_all_ranks(self, pair: SplitEngine) -> None:
        own, largest = pair.memory()[::2][0], pair.memory()[2:]
        assert "rss_peak" == own.source
        assert ["rss_peak", "rss_steady"] == [reading.source for reading in largest]
        assert max(rank_of(pair).memory_info().rss // 2, own.value_bytes // 2) < largest[0].value_bytes

    def test_what_all_ranks_refuse_alike_ends_nothing(self, pair: SplitEngine) -> None:
        before = run(pair, 3)
        with pytest.raises(TrialError, match="cannot rewind to 99"):
            pair.rewind(99)
        with pytest.raises(TrialError, match="rewind to 0"):
            pair.prefill()
        pair.prepare(work())
        assert before == run(pair, 3)

    def test_ranks_that_made_other_tokens_are_found_out(self, pair: SplitEngine) -> None:
        run(pair, 3)
        loop = pair._engine._open_loop()
        with torch.inference_mode():
            loop._buffers.history[0, 1] += 1
        with pytest.raises(TrialError, match="rank 1 made other tokens than rank 0"):
            pair.output_tokens()


def test_a_compiled_model_is_split_too(folder: Path) -> None:
    with opened(split(request(mode="compiled", folder=folder))) as engine:
        before = engine.graphs_compiled  # of the whole process, in which other tests may have compiled
        prepared = engine.prepare(work())
        assert before is not None and prepared.compile_s is not None and before + 1 == engine.graphs_compiled
        assert tokens_of_one(request(folder=folder)) == run(engine, 23)
        found = engine.check_identity(24)
        assert found is not None and found.first_divergence is None


def test_a_rank_that_is_killed_under_a_collective_ends_the_call(folder: Path) -> None:
    with opened(split(request(folder=folder))) as engine:
        engine.prepare(work())
        engine.rewind(0)
        other = rank_of(engine)
        other.suspend()  # rank 0 now waits for it
        threading.Timer(0.5, other.kill).start()
        with pytest.raises(TrialError, match=r"rank 1 \(cpu\) was killed") as caught:
            engine.prefill()
        assert "killed" == caught.value.cause
        with pytest.raises(TrialError, match="have ended"):
            engine.prepare(work())
        assert engine.memory()  # what rank 0 can still tell


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process can be set on Linux alone")
def test_a_rank_whose_memory_runs_out_says_so(folder: Path) -> None:
    with opened(split(request(folder=folder))) as engine:
        other = rank_of(engine)
        held = other.memory_info().vms + 40_000_000
        other.rlimit(psutil.RLIMIT_AS, (held, held))
        with pytest.raises(TrialError, match=r"rank 1 \(cpu\).*memory") as caught:
            engine.prepare(work(rows=256, prompt_tokens=256))
        assert "oom" == caught.value.cause
        assert not other.is_running()


def asked_of_a_worker() -> Iterator[Command]:
    """What a runner would send for one repetition over two processes."""
    asked = request()
    spec = CellSpec(
        model=asked.model,
        engine=asked.engine,
        device=TWO,
        workload=WorkloadSpec(prompt_tokens=12, output_tokens=24),
    )
    yield OpenGroup(
        group="pair",
        spec=spec,
        device="cpu",
        devices=TWO,
        model_name=asked.model_name,
        config_json=asked.config_json,
        weights_folder=None,
        revision=None,
        sha256=None,
        note=None,
        threads=2,
        seed=1,
    )
    yield PrepareCell(cell_id="cell", spec=spec, seed=1, check_identity=True)
    yield RunTrial(trial_id="trial", keep_tokens=True, seed=1)


def test_a_worker_measures_a_split_model_and_counts_the_seconds_of_all_ranks(tmp_path: Path) -> None:
    worker = ProcessWorker(tmp_path / "worker.log", os.environ, 1)
    try:
        replies = [reply for command in asked_of_a_worker() for reply in worker.ask(command, 300.0)]
        leader = psutil.Process(worker._process.pid)
        ranks = leader.children(recursive=True)
        counted = worker.cpu_s()
        own = leader.cpu_times()
    finally:
        worker.close()
    assert ["done"] * 3 == [reply.message for reply in replies if reply.message != "event"]
    events = [reply.event for reply in replies if isinstance(reply, Said)]
    facts = next(event.engine for event in events if isinstance(event, FactsRead))
    assert facts is not None and 1 == facts.threads  # of the two, each process has one
    assert any(isinstance(event, OutputTokens) for event in events)
    assert 23 == sum(sum(event.tokens_per_row) for event in events if isinstance(event, StepTrace)) - 1
    assert 1 == len(ranks) and not ranks[0].is_running()
    assert counted is not None and counted > own.user + own.system


LEADER = """
import dataclasses, sys, time
from tiny_engines import request
from tokbench.measure.engines.transformers import open_engine
engine = open_engine(dataclasses.replace(request(), devices=("cpu", "cpu")))
print(engine._group._followers[0].process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a child with its parent")
def test_no_rank_outlives_the_worker() -> None:
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path])
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert leader.stdout is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        other = psutil.Process(int(leader.stdout.readline()))
        other.suspend()  # it cannot see that rank 0 is gone: the system has to end it
        leader.send_signal(signal.SIGKILL)
        assert [] == psutil.wait_procs([other], timeout=60)[1]
    leader.wait()


def as_rank(rank: int, shape: str) -> Any:
    """The random model as one of two ranks draws it, without the other."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=rank, world_size=2, store=FakeStore())
    try:
        return TransformersEngine(split(request(shape)))._model
    finally:
        torch.distributed.destroy_process_group()


def test_ranks_draw_copies_alike_and_parts_apart() -> None:
    first, second = (dict(as_rank(rank, "tiny-qwen3-moe").named_parameters()) for rank in (0, 1))
    alike = {name for name in first if torch.equal(shards.local(first[name]), shards.local(second[name]))}
    routers = {name for name in first if name.endswith("mlp.gate.weight")}
    assert {name for name in first if "norm" in name} | routers == alike
    assert routers and len(alike) < len(first)


def test_a_drawn_part_has_the_spread_of_the_whole() -> None:
    parameters = dict(as_rank(1, "tiny-llama").named_parameters())
    drawn = shards.local(parameters["model.layers.0.mlp.down_proj.weight"])
    assert (64, 64) == drawn.shape
    assert 0.018 < float(drawn.std()) < 0.022
    assert 1.0 == float(parameters["model.norm.weight"].min()) == float(parameters["model.norm.weight"].max())


class PlannedByPattern:
    """As much of a model of transformers 5.17 as counting asks for: its plan says * for the number of a layer."""

    def __init__(self) -> None:
        self.tp_plan = {
            "model.layers.*.q_proj": "colwise",
            "model.layers.*.o_proj": "rowwise",
            "lm_head": "colwise_rep",
        }

    def named_modules(self) -> list[tuple[str, None]]:
        layers = [f"model.layers.{number}.{name}" for number in (0, 11) for name in ("q_proj", "o_proj")]
        return [(name, None) for name in ("", "model", "model.norm", *layers, "lm_head")]


def test_a_plan_with_patterns_counts_every_layer() -> None:
    assert 3 == shards.collectives_per_step(PlannedByPattern(), 2)


def test_a_random_model_is_built_without_its_weights() -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    model = shards.empty_model(lambda: AutoModelForCausalLM.from_config(LlamaConfig(num_hidden_layers=80)))
    assert {"meta"} == {parameter.device.type for parameter in model.parameters()}
    assert {"cpu"} == {buffer.device.type for buffer in model.buffers()}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request("tiny-gpt-oss"), "no plan that splits a gpt_oss model"),
        (request(overrides={"num_key_value_heads": 1}), "1 key-value heads .*evenly over 2"),
        (request(overrides={"num_attention_heads": 3}), "3 attention heads .*evenly over 2"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused_before_a_process_starts(asked: EngineRequest, words: str) -> None:
    with pytest.raises(PlugError, match=words):
        open_engine(split(asked))
    assert not torch.distributed.is_initialized()
