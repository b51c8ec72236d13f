"""The child process that says what transformers would have answered: `python -m … FOLDER`, the rest on stdin.

It loads the weights that were converted, in float32, and prints where an answer first leaves transformers' own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tokbench.errors import TrialError
from tokbench.measure.engines import Divergence
from tokbench.measure.packages import last_line


def compare_with_transformers(
    folder: Path, prompts: Sequence[tuple[int, ...]], answers: Sequence[Sequence[int]]
) -> Divergence:
    """The earliest token at which any answer leaves transformers', and how near its two best logits were there.

    Raises:
        TrialError: the child failed; its last words.
    """
    asked = json.dumps({"prompts": prompts, "answers": answers})
    command = [sys.executable, "-P", "-m", __name__, str(folder)]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TrialError(f"the reference of the identity check failed: {last_line(done.stderr)}", cause="engine")
    found = json.loads(done.stdout.splitlines()[-1])
    compared = min(len(answer) for answer in answers)
    name = f"transformers {found['version']} generate in float32, greedy, each prompt alone"
    return Divergence(name, compared, found["first_divergence"], found["top2_gap"])


def find_divergence(
    folder: Path, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> tuple[int, float] | None:
    """Index of the earliest token that differs, with the gap of transformers' two largest logits there."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: list[tuple[int, float]] = []
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt], dtype=torch.long)
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=len(answer),
            eos_token_id=-1,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        theirs = made.sequences[0, len(prompt) :].tolist()
        first = next((index for index, pair in enumerate(zip(answer, theirs, strict=True)) if pair[0] != pair[1]), None)
        if first is not None:
            top = made.logits[first][0].topk(2).values
            found.append((first, float(top[0] - top[1])))
    return min(found, default=None)


def main(arguments: list[str]) -> int:
    """Compare what stands on stdin; 2 when the folder is not given."""
    if len(arguments) != 1:
        print("usage: python -m tokbench.measure.engines.openvino.reference FOLDER", file=sys.stderr)
        return 2
    import transformers

    asked = json.load(sys.stdin)
    first, gap = find_divergence(Path(arguments[0]), asked["prompts"], asked["answers"]) or (None, None)
    print(json.dumps({"first_divergence": first, "top2_gap": gap, "version": transformers.__version__}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
