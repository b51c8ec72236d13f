#!/usr/bin/env bash
# what: optimum-benchmark, a peer that measures transformers; it needs transformers 4
# cost: 1.4 GiB and 2 minutes (two cores)
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
make_venv "$target"
pip_install "$target" torch==2.13.0
pip_install "$target" optimum-benchmark==0.6.0 transformers==4.57.6 torch==2.13.0

"$target/bin/python" -c 'import optimum_benchmark, transformers; from optimum_benchmark import PyTorchConfig, InferenceConfig, InlineConfig'
versions "$target" optimum-benchmark transformers torch
