#!/usr/bin/env bash
# Checks and measures tokbench on a lent GPU machine that has no network: only this repository and .whl/ go there.
#
#   scripts/gpu_check.sh OUT_DIR [STEP…]     run these steps (default: all, in order of value)
#   scripts/gpu_check.sh --list              name the steps
#
# A step takes at most 8.5 minutes, a call at most LIMIT_S seconds (570); what did not fit says so: call again.
# Every step leaves OUT_DIR/STEP.report.md (its log, where there is no report), and a measuring one STEP.tar.gz too
# (STEP.log, and in record/ config.yaml, events.jsonl, report.md, report.html, summary.json, figures/), also when it was
# stopped half-way. An events.jsonl that makes the archive larger than 15 MiB lies beside it as STEP.events.jsonl.xz.
# tokbench writes after every trial, and the archive is made anew every SNAPSHOT_S seconds, so that a call that is killed
# leaves what it had. A step that is called again goes on with --resume where runs/ is still there; on a fresh machine,
# name in RESTORE_DIR the folder that holds the earlier STEP.tar.gz. A step that is complete is skipped; rm -r
# runs/gpu-STEP runs it anew. Exit code 1 of tokbench (a trial failed, or the budget left cells out; both are recorded)
# is no failure of a step.
#
# GPU_CHECK_TINY=1 tries the plumbing out on a CPU in about four minutes: tiny shapes, no generated code, no wheels:
#   GPU_CHECK_TINY=1 PYTHON=.venv/bin/python scripts/gpu_check.sh /tmp/out
#
# Carried wheels: the image has torch, transformers, accelerate, safetensors, huggingface_hub, pynvml, pandas, typer,
# rich, matplotlib, scipy, psutil, jinja2, yaml and pytest; it lacks pydantic, pydantic-core, annotated-types,
# typing-inspection, gguf and torchao (typing-extensions goes along, since pydantic asks for a new one). Fetch them before with
#   scripts/fetch_gpu_wheels
# which is, with the versions of constraints.txt,
#   python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#       --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d .whl pydantic==… pydantic-core==… …
# and carry .whl with the call (git ignores it).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STEPS=(doctor tests llama8b energy limit llama70b attention precision quick moe30b verify_cost speculation8b speculation70b kv context_growth v3_slice
    moe_triple moe_wide moe_grain moe_routing moe_offload reasoning claims)
STEP_S=510
LIMIT_S=${LIMIT_S:-570}
PACK_S=30                                # left at the end of a call to close the record and to pack
SNAPSHOT_S=45
TINY=${GPU_CHECK_TINY:-}
MAX_FILES=8                              # in OUT_DIR, per call
MAX_BYTES=$((${MAX_FILE_MIB:-15} << 20)) # per file
SITE=${SITE_DIR:-/tmp/tokbench-site}
python=${PYTHON:-python3}

say() { printf '== %s\n' "$*"; }

install_wheels() {
    if [[ -z $TINY ]] && compgen -G '.whl/*.whl' >/dev/null; then
        "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
            --target "$SITE" .whl/*.whl
    fi
    export PYTHONPATH="$PWD/src:$SITE${PYTHONPATH:+:$PYTHONPATH}"
    export PYTHONUNBUFFERED=1 MPLBACKEND=Agg HF_HUB_OFFLINE=1
    export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/tokbench-inductor}
    "$python" -c 'import pydantic, yaml, tokbench' ||
        { echo "gpu_check: a package is missing: run scripts/fetch_gpu_wheels and carry .whl" >&2; exit 3; }
}

tokbench() { limited "$python" -c 'import sys; from tokbench.cli.app import main; sys.argv[0] = "tokbench"; sys.exit(main())' "$@"; }

# SIGTERM lets tokbench close the record and write its report; --foreground keeps it from tokbench's workers.
limited() { timeout --foreground --kill-after=20 "$step_s" "$@"; }

# measure CONFIG SHAPE [SETTING…]: random weights of that shape; the wheels for pretrained ones cannot be fetched there.
measure() {
    local config=$1 shape=$2 setting settings=()
    shift 2
    if grep -qs trial_started "$record/events.jsonl"; then
        tokbench run --resume "$record"
        return
    fi
    rm -rf "$record" # nothing was measured: there is nothing to go on with
    set -- model.weights=random "model.source=shape:$shape" "$@"
    [[ -z $TINY ]] || set -- "$@" model.source=shape:tiny-llama model.dtype=float32 device=cpu budget.total=25s \
        budget.cold=60s 'workload.prompt_tokens=[16]' workload.output_tokens=8 'load.static_batch=[1, 2]' \
        stop.warmup_cap=1s 'engine.options={compile_backend: eager}'
    [[ -z $TINY || $shape != *-A3B ]] || set -- "$@" model.source=shape:tiny-qwen3-moe
    for setting; do settings+=(--set "$setting"); done
    tokbench run "$config" --out "$record" "${settings[@]}" "${flags[@]}"
}

# measure_as_written CONFIG [SETTING…]: a config that names its own shapes.
measure_as_written() {
    local config=$1 setting settings=()
    shift
    if grep -qs trial_started "$record/events.jsonl"; then
        tokbench run --resume "$record"
        return
    fi
    rm -rf "$record"
    [[ -z $TINY ]] || set -- "$@" 'model={source: shape:tiny-llama, weights: random, dtype: float32}' device=cpu \
        budget.total=25s budget.cold=60s 'workload.prompt_tokens=[16]' workload.output_tokens=8 \
        'load.static_batch=[1, 2]' stop.warmup_cap=1s 'engine.options={compile_backend: eager}' 'exclude=[]'
    for setting; do settings+=(--set "$setting"); done
    tokbench run "$config" --out "$record" "${settings[@]}"
}

# measure_family CONFIG SMALL [SETTING…]: a config of several shapes; tried out, its sister for a CPU with short prompts.
measure_family() {
    local config=$1 small=$2 setting settings=()
    shift 2
    if grep -qs trial_started "$record/events.jsonl"; then
        tokbench run --resume "$record"
        return
    fi
    rm -rf "$record"
    if [[ -n $TINY ]]; then
        config=$small
        set -- "$@" budget.total=25s budget.cold=60s 'workload.prompt_tokens=[16]' workload.output_tokens=8 \
            load.static_batch=1 'exclude=[]' stop.warmup_cap=1s 'engine.options={compile_backend: eager}'
    fi
    for setting; do settings+=(--set "$setting"); done
    tokbench run "$config" --out "$record" "${settings[@]}"
}

step_doctor() {
    "$python" -V
    "$python" - <<'PY'
import importlib.metadata as metadata
for name in ("torch", "triton", "transformers", "accelerate", "safetensors", "pydantic", "numpy", "pandas", "nvidia-ml-py"):
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        print(name, "is not installed")
PY
    nvidia-smi -q -d MEMORY,CLOCK,POWER,TEMPERATURE,PERFORMANCE,ECC | head -n 160 || true
    nproc
    tokbench doctor
}
step_tests() { limited "$python" -m pytest -m gpu tests/gpu -q --durations=10; }
step_llama8b() {
    measure configs/llama.yaml Llama-3.1-8B-Instruct budget.total=7min 'load.static_batch=[1, 8, 64]'
}
step_energy() { measure_as_written configs/energy-h200.yaml budget.total=7min budget.cold=1s; }
step_limit() { measure_as_written configs/limit-h200.yaml budget.total=7min budget.cold=1s; }
step_attention() { measure_as_written configs/attention-h200.yaml budget.total=7min budget.cold=1s; }
step_kv() { measure_family configs/kv-h200.yaml configs/attention.yaml budget.total=7min budget.cold=1s; }
step_context_growth() { measure_as_written configs/context-growth-h200.yaml budget.total=7min budget.cold=1s; }
step_v3_slice() { measure_family configs/v3-slice-h200.yaml configs/v3-slice.yaml budget.total=7min budget.cold=1s; }
step_precision() {
    if [[ -z $TINY ]] && ! "$python" -c 'import torchao'; then
        echo "precision: torchao is not carried: put its wheel into .whl (scripts/fetch_gpu_wheels)"
        return
    fi
    measure_as_written configs/precision-h200.yaml budget.total=7min budget.cold=1s
}
step_reasoning() { # tiny shapes answer once: six lengths would all be the one that measure_as_written sets
    measure_as_written configs/reasoning-h200.yaml budget.total=7min budget.cold=1s \
        ${TINY:+zip=[]} ${TINY:+'labels={claim: hidden-tokens, thinking_tokens: "4"}'}
}
step_claims() { measure_as_written configs/claims-h200.yaml budget.total=7min budget.cold=1s; }
step_quick() {
    local flags=(--quick)
    measure configs/llama.yaml Llama-3.1-8B-Instruct
}
step_moe30b() {
    measure configs/llama.yaml Qwen3-30B-A3B budget.total=7min 'load.static_batch=[1, 8]'
}
# measure_replay SOURCE DTYPE LABEL [SETTING…]: configs/speculation-h200.yaml for one target, with its draft alone beside it.
measure_replay() {
    local setting settings=() draft='{source: shape:Llama-3.2-1B-Instruct, weights: random, dtype: bfloat16}'
    if grep -qs trial_started "$record/events.jsonl"; then
        tokbench run --resume "$record"
        return
    fi
    rm -rf "$record"
    set -- "model=[{source: $1, weights: random, dtype: $2}, $draft]" "labels={claim: [$3, draft-alone]}" "${@:4}"
    if [[ -n $TINY ]]; then
        draft='{source: shape:tiny-llama, weights: random, dtype: float32, layers: 1}'
        set -- "$@" "model=[{source: shape:tiny-llama, weights: random, dtype: float32}, $draft]" device=cpu budget.total=25s \
            budget.cold=60s workload.prompt_tokens=16 workload.output_tokens=8 'load.static_batch=[1, 2]' stop.warmup_cap=1s \
            "speculation=[none, {method: replay, gamma: 3, options: {alpha: 0.7}, draft: $draft}]" \
            'engine.options={compile_backend: eager}' 'experiment=none' 'exclude=[{labels.claim: draft-alone, speculation.method: replay}]'
    fi
    for setting; do settings+=(--set "$setting"); done
    tokbench run configs/speculation-h200.yaml --out "$record" "${settings[@]}"
}
step_speculation8b() {
    measure_replay shape:Llama-3.1-8B-Instruct bfloat16 drafts budget.total=7min budget.cold=1s
}
step_speculation70b() {
    measure_replay shape:Llama-3.3-70B-Instruct fp8 drafts-70b budget.total=7min budget.cold=1s 'load.static_batch=[1, 16]'
}
# measure_moe PROMPT BATCHES LEFT_OUT: the cells of configs/moe-h200.yaml whose labels are not among LEFT_OUT.
measure_moe() {
    measure_family configs/moe-h200.yaml configs/moe.yaml budget.total=7min budget.cold=1s "workload.prompt_tokens=$1" \
        "load.static_batch=[$2]" "exclude=[{labels.claim: [$3]}]"
}
step_moe_triple() { measure_moe 128 '1, 8, 32, 128, 1024' 'granularity, routing, offload, moe-offload'; }
step_moe_wide() { measure_moe 32 '2048, 4096' 'granularity, routing, offload, moe-offload'; }
step_moe_grain() { measure_moe 128 '8, 32' 'moe-triple, routing, offload, moe-offload'; }
step_moe_routing() { measure_moe 128 '8, 32' 'moe-triple, granularity, offload, moe-offload'; }
step_moe_offload() { measure_moe 128 '1' 'moe-triple, granularity, routing'; }
step_verify_cost() { measure_as_written configs/verify-cost-h200.yaml budget.total=7min budget.cold=1s; }
step_llama70b() {
    measure configs/llama-70b.yaml Llama-3.1-70B-Instruct budget.total=7min budget.cold=1s 'load.static_batch=[1, 8]'
}

# 0: all went well; 1 with a summary: some trials failed, or cells were left out, and the record says which.
is_good() { [[ $1 == 0 || ($1 == 1 && -f $record/summary.json) ]]; }

is_complete() { [[ -f $folder/exit_code ]] && is_good "$(<"$folder/exit_code")"; }

restore() {
    local archive=${RESTORE_DIR:-}/$1.tar.gz
    [[ -n ${RESTORE_DIR:-} && -f $archive && ! -e $folder ]] || return 0
    say "$1: restoring $archive"
    tar -xzf "$archive" -C runs
    [[ ! -f $RESTORE_DIR/$1.events.jsonl.xz ]] || xz -dc "$RESTORE_DIR/$1.events.jsonl.xz" >"$record/events.jsonl"
}

# Into place at one blow, so that a snapshot is never half an archive; tar's 1 says that a file grew while it was read.
put() { mv -f "$out/.part" "$1"; }

archive() {
    local code=0
    tar -czf "$out/.part" -C runs "$@" 2>/dev/null || code=$?
    ((code <= 1))
}

pack() {
    local name=$1
    if [[ -f $record/report.md ]]; then
        cp "$record/report.md" "$out/.part"
    else
        { printf '# %s\n\n```\n' "$name"; tail -c 200000 "$folder/$name.log"; printf '```\n'; } >"$out/.part"
    fi
    put "$out/$name.report.md"
    [[ -d $record ]] || return 0
    archive "gpu-$name"
    if (($(stat -c %s "$out/.part") > MAX_BYTES)); then
        say "$name: the record is large; events.jsonl comes as a file of its own"
        archive --exclude=events.jsonl "gpu-$name"
        put "$out/$name.tar.gz"
        xz -T0 -3 -c "$record/events.jsonl" >"$out/.part"
        put "$out/$name.events.jsonl.xz"
    else
        put "$out/$name.tar.gz"
    fi
}

snapshots() {
    while sleep "$SNAPSHOT_S"; do pack "$1" || true; done
}

run_step() {
    local name=$1 folder=runs/gpu-$1 record=runs/gpu-$1/record code=0 started=$SECONDS packer flags=()
    mkdir -p runs
    restore "$name"
    if is_complete; then
        say "$name: complete (exit code $(<"$folder/exit_code")), skipped"
        return
    fi
    step_s=$((LIMIT_S - PACK_S - SECONDS))
    ((step_s > STEP_S)) && step_s=$STEP_S
    if ((step_s < 60)) || (($(find "$out" -type f | wc -l) + 3 > MAX_FILES)); then
        say "$name: no room left in this call; call again with: $name"
        return
    fi
    say "$name: at most $step_s s"
    mkdir -p "$folder"
    snapshots "$name" >/dev/null 2>&1 &
    packer=$!
    "step_$name" > >(tee -a "$folder/$name.log") 2>&1 || code=$?
    kill "$packer" 2>/dev/null || true
    wait "$packer" 2>/dev/null || true
    rm -f "$out/.part"
    sleep 1 # tee, which is not waited for: a stray child that holds the pipe would stop it from ending
    echo "$code" >"$folder/exit_code"
    say "$name: exit code $code after $((SECONDS - started)) s"
    pack "$name"
    is_good "$code" || failed+=("$name:$code")
}

main() {
    if [[ ${1:-} == --list ]]; then
        printf '%s\n' "${STEPS[@]}"
        return
    fi
    [[ -n ${1:-} && $1 != -* ]] || { echo "usage: scripts/gpu_check.sh OUT_DIR [STEP…] | --list" >&2; exit 2; }
    mkdir -p "$1"
    out=$(realpath "$1")
    shift
    local chosen=("$@") failed=() name step_s
    ((${#chosen[@]})) || chosen=("${STEPS[@]}")
    for name in "${chosen[@]}"; do
        [[ " ${STEPS[*]} " == *" $name "* ]] || { echo "gpu_check: no step '$name'; there are: ${STEPS[*]}" >&2; exit 2; }
    done
    install_wheels
    for name in "${chosen[@]}"; do run_step "$name"; done
    say "done after $SECONDS s; failed: ${failed[*]:-none}"
    ((${#failed[@]} == 0))
}

main "$@"
