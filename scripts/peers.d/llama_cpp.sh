#!/usr/bin/env bash
# what: the engine `llama_cpp`: llama.cpp's server as a Python module (the prebuilt wheel xllamacpp, for CPUs)
# cost: 0.3 GiB and 20 seconds
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
make_venv "$target"
# The index of Python packages has the CPU build (on macOS: Metal). For CUDA or ROCm install the project's own wheel over it.
pip_install "$target" xllamacpp==2026.10.11549 gguf==0.19.0 'PyYAML>=6'
add_tokbench "$target"

"$target/bin/python" -c 'import xllamacpp; assert xllamacpp.Server and xllamacpp.get_system_info()'
versions "$target" xllamacpp gguf
