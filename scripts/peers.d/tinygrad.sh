#!/usr/bin/env bash
# what: the engine `tinygrad`: a Llama in tinygrad on a CPU, and the clang that its kernels go through (in Zig's wheel)
# cost: 0.6 GiB and 1 minute
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
make_venv "$target"
pip_install "$target" tinygrad==0.14.0 ziglang==0.17.1 numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3 'PyYAML>=6'
add_tokbench "$target"

# PYTHON is a device of tinygrad's, which reads the variable of that name as a number.
env -u PYTHON "$target/bin/python" - <<'PY'
import os, pathlib, tempfile

from tokbench.measure.engines.tinygrad import llama

with tempfile.TemporaryDirectory() as folder:
    os.environ["CC"] = llama.name_compiler(pathlib.Path(folder))
    assert (llama.Tensor([1.0, 2.0], device="CPU") * 3).tolist() == [3.0, 6.0]
PY
versions "$target" tinygrad ziglang numpy
