"""The child process that turns a GGUF file into safetensors: `python -m tokbench.measure.convert_gguf IN OUT`.

It writes float32 weights, the tokenizer and `conversion.json` into OUT, and touches nothing else. It never fetches
anything and never runs code that came with a model; the parent decides where OUT goes and whether it counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

CONVERSION_FILE = "conversion.json"
"""What the child tells the parent; written last, so that its absence means an unfinished conversion."""


def gguf_types(gguf: Path) -> dict[str, int]:
    """Count the file's tensors by their GGUF type, e.g. `{"Q4_1": 210, "F32": 61}`."""
    from gguf import GGUFReader

    counts: dict[str, int] = {}
    for tensor in GGUFReader(str(gguf)).tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return counts


def convert(gguf: Path, out: Path) -> None:
    """Dequantise `gguf` to float32 safetensors with its tokenizer under `out`."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder = str(gguf.parent)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
    # Without dequantize=True transformers 5.23 marks the model as quantised, and save_pretrained refuses it.
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    facts = {
        "tensors_by_type": gguf_types(gguf),
        "parameters": model.num_parameters(),
        "dtype": "float32",
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
    }
    (out / CONVERSION_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run the conversion for the two paths given; 2 when they are not two."""
    if len(arguments) != 2:
        print("usage: python -m tokbench.measure.convert_gguf IN.gguf OUT_FOLDER", file=sys.stderr)
        return 2
    convert(Path(arguments[0]), Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
