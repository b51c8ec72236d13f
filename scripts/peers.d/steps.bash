# Steps that recipes share: `source "$(dirname "${BASH_SOURCE[0]}")/steps.bash"`. The contract stands in scripts/peers.
set -euo pipefail

export PIP_DISABLE_PIP_VERSION_CHECK=1

# make_venv TARGET: a virtual environment with a pip; one that is there and works is kept.
# Debian ships python3 without ensurepip: then pip is brought in from outside.
make_venv() {
    "$1/bin/python" -m pip --version >/dev/null 2>&1 && return
    if "$PYTHON" -c 'import ensurepip' >/dev/null 2>&1; then
        "$PYTHON" -m venv --clear "$1"
    else
        "$PYTHON" -m venv --clear --without-pip "$1"
        "$PYTHON" -m pip --python "$1/bin/python" install -qq --ignore-installed pip
    fi
}

# pip_install TARGET ARGUMENT…: errors only; progress is said by the recipe.
pip_install() { local target=$1; shift; "$target/bin/python" -m pip install -qq "$@"; }

# add_tokbench TARGET: this checkout, and of its dependencies what a worker imports; the engine's own versions are kept.
add_tokbench() {
    pip_install "$1" --no-deps -e .
    pip_install "$1" 'pydantic>=2.9' 'psutil>=5.9'
    "$1/bin/python" -c 'import tokbench.measure.worker'
}

# versions TARGET PACKAGE…: one line for the end of a recipe.
versions() {
    local target=$1
    shift
    "$target/bin/python" - "$@" <<'PY'
import importlib.metadata, platform, sys
print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in sys.argv[1:]) + f", Python {platform.python_version()}")
PY
}
