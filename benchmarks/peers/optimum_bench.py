"""optimum-benchmark on the demo model in float32, as its own Python interface is used; knows nothing of tokbench.

    .peers/optimum_benchmark/bin/python benchmarks/peers/optimum_bench.py FOLDER --launcher inline|process --out FILE

FOLDER holds the checkpoint as transformers 5 writes it. transformers 4 would read another `rope_theta` of it and does
not know its tokenizer class, so that a copy of the two configs is put right first. Writes the bench's report as JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import tempfile
from pathlib import Path
from typing import Any


def readable_copy(folder: Path, into: Path) -> None:
    """The checkpoint for transformers 4: weights by link, `rope_theta` and tokenizer class in their old places."""
    for path in folder.iterdir():
        if path.is_file():
            (into / path.name).symlink_to(path.resolve())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    for name, content in (("config.json", config), ("tokenizer_config.json", tokenizer)):
        (into / name).unlink()
        (into / name).write_text(json.dumps(content), encoding="utf-8")


def launch(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """One benchmark: its report."""
    from optimum_benchmark import (
        Benchmark,
        BenchmarkConfig,
        InferenceConfig,
        InlineConfig,
        ProcessConfig,
        PyTorchConfig,
    )

    scenario = InferenceConfig(
        input_shapes={"batch_size": 1, "sequence_length": given.prompt_tokens},
        generate_kwargs={"max_new_tokens": given.output_tokens, "min_new_tokens": given.output_tokens},
        warmup_runs=given.warmup,
        iterations=given.iterations,
        duration=0,
    )
    backend = PyTorchConfig(
        model=str(folder), task="text-generation", library="transformers", device="cpu", torch_dtype="float32"
    )
    launcher = InlineConfig() if given.launcher == "inline" else ProcessConfig()
    config = BenchmarkConfig(name="engines-cpu", scenario=scenario, launcher=launcher, backend=backend)
    found: dict[str, Any] = Benchmark.launch(config).to_dict()
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--launcher", choices=("inline", "process"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    for name, default in (("prompt-tokens", 128), ("output-tokens", 64), ("warmup", 1), ("iterations", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        readable_copy(given.folder, Path(scratch))
        report = launch(Path(scratch), given)
    names = ("optimum-benchmark", "transformers", "torch")
    versions = {name: importlib.metadata.version(name) for name in names}
    found = {"versions": versions, "output_tokens": given.output_tokens, "report": report}
    given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
