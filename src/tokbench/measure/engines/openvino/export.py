"""The child process that converts safetensors for OpenVINO: `python -m … FOLDER OUT FORMAT [ARGUMENT…]`.

It writes the model, its tokenizer and `export.json` into OUT and touches nothing else; it fetches nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

EXPORT_FILE = "export.json"
"""What the child tells the parent; written last, so that its absence means an unfinished conversion."""
PACKAGES = ("openvino", "openvino-genai", "openvino-tokenizers", "optimum-intel", "nncf", "transformers", "torch")
"""Those that decide what a conversion looks like or what it can be read by."""


def versions() -> dict[str, str]:
    """Of all packages that have a part in it."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def export(folder: Path, out: Path, weight_format: str, arguments: list[str]) -> None:
    """Convert with optimum-intel's own command."""
    from optimum.commands.optimum_cli import main as optimum_cli

    sys.argv = ["optimum-cli", "export", "openvino", "--model", str(folder), "--task", "text-generation-with-past"]
    sys.argv += ["--library", "transformers", "--weight-format", weight_format, *arguments, str(out)]
    optimum_cli()
    facts = {"parameters": count_parameters(folder), "versions": versions()}
    (out / EXPORT_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def count_parameters(folder: Path) -> int:
    """Of the model that the folder's config describes, shared ones once; no memory is taken for them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


def main(arguments: list[str]) -> int:
    """Run the conversion; 2 when the arguments are too few."""
    if len(arguments) < 3:
        print("usage: python -m tokbench.measure.engines.openvino.export FOLDER OUT FORMAT …", file=sys.stderr)
        return 2
    export(Path(arguments[0]), Path(arguments[1]), arguments[2], arguments[3:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
