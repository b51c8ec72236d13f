#!/usr/bin/env bash
# what: the engine `jax`: a Llama in JAX on a CPU, compiled by XLA
# cost: 0.5 GiB and 1 minute
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
make_venv "$target"
# For an NVIDIA GPU install jax[cuda13] of the same version over it.
pip_install "$target" jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3 'PyYAML>=6'
add_tokbench "$target"

"$target/bin/python" -c 'from tokbench.measure.engines.jax import llama'
versions "$target" jax jaxlib numpy
