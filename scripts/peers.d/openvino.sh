#!/usr/bin/env bash
# what: the engine `openvino` (OpenVINO GenAI on a CPU) with optimum-intel, which converts weights for it
# cost: 1.6 GiB and 2 minutes (two cores)
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
make_venv "$target"

# torch and transformers convert the weights and are the reference of the identity check; what is measured is neither.
pip_install "$target" openvino-genai==2026.4.1.0 openvino==2026.4.1 openvino-tokenizers==2026.4.1.0 \
    optimum-intel==2.2.0 optimum==2.3.0 nncf==3.4.0 transformers==5.5.4 torch==2.13.0
# The torchvision that pip resolves is not of a CPU build of torch ("operator torchvision::nms does not exist"); text
# needs none.
"$target/bin/python" -m pip uninstall -qq -y torchvision
add_tokbench "$target"

"$target/bin/python" -c 'import optimum.exporters.openvino, openvino_genai; from tokbench.measure.engines.openvino import engine'
versions "$target" openvino-genai openvino openvino-tokenizers optimum-intel nncf transformers torch
