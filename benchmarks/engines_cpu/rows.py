"""The rows of the table: what each runs, in which environment, and how its output is read. It runs nothing."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from benchmarks.engines_cpu.readings import (
    Reading,
    last_json,
    read_llama_bench,
    read_optimum,
    read_own,
    read_record,
    read_vllm_bench,
)
from tokbench.measure.worker_process import worker_environment

Kind = Literal["tokbench", "peer", "own"]
PROMPT_TOKENS, OUTPUT_TOKENS = 128, 64
CONFIG = "configs/engines-cpu.yaml"
CLOSED = "load={kind: closed, concurrency: 1, requests: 3}"
SETTINGS = {
    "transformers-eager": (),
    "transformers-compiled": ("engine.mode=compiled",),
    "openvino": ("engine={kind: openvino}", CLOSED),
    "vllm-eager": ("engine={kind: vllm, mode: eager}", CLOSED),
    "vllm-default": ("engine={kind: vllm, mode: default}", CLOSED),
    "llama_cpp": ("engine={kind: llama_cpp}", "model.dtype=gguf", CLOSED),
}
"""What turns CONFIG into the row of an engine."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
VLLM_BENCH = (
    f"bench latency --dtype float32 --input-len {PROMPT_TOKENS} --output-len {OUTPUT_TOKENS} --batch-size 1 "
    "--num-iters-warmup 1 --num-iters 3 --max-model-len 512 --disable-detokenize"
).split()


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where weights and environments lie."""

    peers: Path
    weights: Path
    """The float32 checkpoint's folder."""
    gguf: Path
    threads: int

    def python(self, peer: str) -> str:
        """The interpreter of a peer's environment."""
        return str(self.peers / peer / "bin" / "python")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the table, or one own loop that the table sets tokbench against."""

    name: str
    kind: Kind
    engine: str
    """The library whose speed it is."""
    weights_of: str
    """The row of tokbench that runs the same weights."""
    command: Callable[[Places, Path], list[str]]
    """For an empty scratch folder."""
    read: Callable[[str, Path], Reading]
    """From what it printed and what lies in the scratch folder."""
    environment: Callable[[Mapping[str, str], int], dict[str, str]]
    note: str = ""
    """Conditions that no reading tells."""
    is_one_request: bool = False
    """Whether both sides of an own loop are clocks on one request: their ratio is near 1 whatever the engine costs."""
    recipe: str | None = None
    """The recipe of scripts/peers whose stamp tells the version, where the bench does not."""


def tokbench_arguments(name: str) -> list[str]:
    """What comes behind `tokbench` to measure a row's engine."""
    return ["run", CONFIG, *(part for setting in SETTINGS[name] for part in ("--set", setting))]


def closing_command(name: str) -> str:
    """The command that measures the engine of a row of tokbench."""
    return shlex.join(["tokbench", *tokbench_arguments(name)])


def all_rows() -> tuple[Row, ...]:
    """Every row, in the order of the table."""
    return (*map(_tokbench, SETTINGS), *_peers(), *_own_loops())


def _as_found(environ: Mapping[str, str], _threads: int) -> dict[str, str]:
    return {**environ, **OFFLINE}


def _tokbench(name: str) -> Row:
    def command(_places: Places, scratch: Path) -> list[str]:
        return [
            sys.executable,
            "-m",
            "tokbench",
            *tokbench_arguments(name),
            "--out",
            str(scratch / "run"),
            "--no-report",
        ]

    def environment(environ: Mapping[str, str], _threads: int) -> dict[str, str]:
        return dict(environ)  # tokbench sets its worker's

    engine = name.partition("-")[0]
    return Row(
        name, "tokbench", engine, name, command, lambda _text, scratch: read_record(scratch / "run"), environment
    )


def _json_at(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _peers() -> tuple[Row, ...]:
    def llama_bench(places: Places, _scratch: Path) -> list[str]:
        shape = f"-p {PROMPT_TOKENS} -n {OUTPUT_TOKENS} -d {PROMPT_TOKENS} -t {places.threads} -r 3 -o json"
        return [str(places.peers / "llama_bench/bin/llama-bench"), "-m", str(places.gguf), *shape.split()]

    return (
        Row(
            "llama-bench",
            "peer",
            "llama_cpp",
            "llama_cpp",
            llama_bench,
            lambda text, _: read_llama_bench(last_json(text), PROMPT_TOKENS, OUTPUT_TOKENS),
            _as_found,
            "random tokens, no sampling; build for AVX2, as the wheel's; it tells no TTFT",
            "llama_bench",
        ),
        *(_vllm_bench(mode) for mode in ("eager", "default")),
        *(_optimum(launcher) for launcher in ("inline", "process")),
    )


def _vllm_bench(mode: str) -> Row:
    def command(places: Places, scratch: Path) -> list[str]:
        how = ["--enforce-eager"] if mode == "eager" else []
        files = ["--model", str(places.weights), "--output-json", str(scratch / "found.json")]
        return [str(places.peers / "vllm/bin/vllm"), *VLLM_BENCH, *how, *files]

    return Row(
        f"vllm-bench-latency-{mode}",
        "peer",
        "vllm",
        f"vllm-{mode}",
        command,
        lambda _, scratch: read_vllm_bench(_json_at(scratch / "found.json"), OUTPUT_TOKENS),
        lambda environ, threads: {**_as_found(environ, threads), "VLLM_CPU_KVCACHE_SPACE": "1"},
        "seconds of whole requests alone; temperature 1; engine core in a process of its own; threads bound by vLLM",
    )


def _optimum(launcher: str) -> Row:
    def command(places: Places, scratch: Path) -> list[str]:
        script = [places.python("optimum_benchmark"), "benchmarks/peers/optimum_bench.py", str(places.weights)]
        few = ["--warmup", "0", "--iterations", "1"] if launcher == "process" else []  # a minute for each at its pace
        return [*script, "--launcher", launcher, "--out", str(scratch / "found.json"), *few]

    how = (
        "transformers 4 eager; launcher inline"
        if launcher == "inline"
        else ("transformers 4 eager; its default launcher, whose parent busy-waits on one core; one repetition, cold")
    )
    return Row(
        f"optimum-benchmark-{launcher}",
        "peer",
        "transformers",
        "transformers-eager",
        command,
        lambda _, scratch: read_optimum(_json_at(scratch / "found.json")),
        _as_found,
        how,
    )


def _own_loops() -> tuple[Row, ...]:
    def of(weights: str, engine: str, arguments: str, note: str, python: str | None = None) -> Row:
        def command(places: Places, _scratch: Path) -> list[str]:
            return [places.python(python) if python else sys.executable, *arguments.split()]

        def read(text: str, _scratch: Path) -> Reading:
            return read_own(last_json(text))

        return Row(f"own-{weights}", "own", engine, weights, command, read, worker_environment, note)

    hand = "-m benchmarks.peers.transformers_own --mode"
    return (
        of("transformers-eager", "transformers", f"{hand} eager", "hand loop over the model, growing cache"),
        of(
            "transformers-compiled",
            "transformers",
            f"{hand} compiled",
            "torch.compile of the stock model, static cache",
        ),
        of(
            "openvino",
            "openvino",
            "benchmarks/peers/openvino_own.py --beside --repetitions 4",
            "LLMPipeline.generate by its perf_metrics",
            "openvino",
        ),
        dataclasses.replace(
            of(
                "llama_cpp",
                "llama_cpp",
                "-m benchmarks.peers.llama_cpp_loop",
                "handle_completions called directly, same server, other requests",
                "llama_cpp",
            ),
            name="own-llama_cpp-loop",
        ),
        dataclasses.replace(
            of(
                "llama_cpp",
                "llama_cpp",
                "benchmarks/peers/llama_cpp_own.py",
                "the server's timings, same requests",
                "llama_cpp",
            ),
            is_one_request=True,
        ),
        of("vllm-eager", "vllm", "benchmarks/peers/vllm_own.py --mode eager", "LLM.generate, same vLLM engine", "vllm"),
        of(
            "vllm-default",
            "vllm",
            "benchmarks/peers/vllm_own.py --mode default",
            "LLM.generate, same vLLM engine",
            "vllm",
        ),
    )
