#!/usr/bin/env bash
# what: the engine `mlx`: a Llama in MLX, on a CPU under Linux, on Apple's GPUs under macOS
# cost: 0.2 GiB and 1 minute
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
make_venv "$target"
extra=""
[[ $(uname -s) == Linux ]] && extra="[cpu]"
pip_install "$target" "mlx$extra==0.32.4" numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3 'PyYAML>=6'
add_tokbench "$target"

"$target/bin/python" -c 'from tokbench.measure.engines.mlx import llama'
versions "$target" mlx numpy
