#!/usr/bin/env bash
# Checks and measures tokbench on a lent GPU machine that has no network: only this repository and .whl/ go there.
#
#   scripts/gpu_check.sh OUT_DIR [STEP[:SECONDS]…]   run these steps (default: all, in order of value)
#   scripts/gpu_check.sh --list                      name the steps, and the seconds that each may take
#   scripts/gpu_check.sh --commands [STEP…]          print what each would measure, for a test; runs nothing
#
# THE DAY OF 30 MINUTES. A call may take 10 minutes, and the machine goes back 30 s after one. So, here, first
# scripts/fetch_gpu_wheels, and then three calls one right after the other, each with carry=[".whl"], timeout_s=595:
#   1.  bash scripts/gpu_check.sh $OUT doctor first energy     what the card is, 14 tests, 8B at 1, 8, 64 and 256 streams:
#                                                              share of the memory's rate, joules per token
#   2.  bash scripts/gpu_check.sh $OUT speculation70b claims   70B in bfloat16, plain (share of the rate) and with replayed
#                                                              drafts (alpha 0.85, gamma 5); 8B eager beside compiled
#   3.  bash scripts/gpu_check.sh $OUT moe_triple              a mixture beside its dense twins at 1, 32 and 128 streams
#   With more time: limit, llama8b, precision … in the order of --list. A fresh machine costs one to two minutes, and has
#   lost runs/ and what was compiled: read the end of a call's output, call again, and look into the files meanwhile.
#   Nothing of this was ever run on a GPU. The seconds are reckoned: loads, the compilation of each shape, visits
#   (tests/gpu_reckoning.py); a step that takes longer is stopped, and has kept what it measured.
#
# Without names a call takes the steps in order, each one that is not complete and whose seconds still fit into the call's
# LIMIT_S (570); what did not fit is named at the end: call again with these. NAME:SECONDS gives a step another limit.
# Every step leaves one archive, OUT_DIR/STEP.tar.gz (STEP.log, and in record/ config.yaml, events.jsonl, report.md,
# report.html, summary.json, figures/), also when it was stopped half-way; a step without a record leaves
# OUT_DIR/STEP.report.md. An events.jsonl that makes the archive larger than 15 MiB lies beside it as STEP.events.jsonl.xz.
# tokbench writes after every trial, and the archive is made anew every SNAPSHOT_S seconds, so that a call that is killed
# leaves what it had. A step that is called again goes on with --resume where runs/ is still there; on a fresh machine,
# name in RESTORE_DIR the folder that holds the earlier STEP.tar.gz. A step that is complete is skipped; rm -r
# runs/gpu-STEP runs it anew. Exit code 1 of tokbench (a trial failed, or the budget left cells out; both are recorded)
# is no failure of a step.
#
# GPU_CHECK_TINY=1 tries the plumbing out on a CPU, a minute a step: tiny shapes, no generated code, no wheels:
#   GPU_CHECK_TINY=1 PYTHON=.venv/bin/python scripts/gpu_check.sh /tmp/out
#
# Carried wheels: the image (Python 3.12) has torch, transformers, accelerate, safetensors, huggingface_hub, pynvml, pandas,
# typer, rich, matplotlib, scipy, psutil, jinja2, yaml and pytest; it lacks pydantic, pydantic-core, annotated-types,
# typing-inspection, gguf and torchao (typing-extensions goes along, since pydantic asks for a new one):
# scripts/fetch_gpu_wheels puts them into .whl, which git ignores, in the versions of constraints.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

LIMIT_S=${LIMIT_S:-570}
PACK_S=20                                # left at the end of a call to close the record and to pack
CLOSE_S=60                               # of a step, after its budget: the last visit ends, the report is written
SNAPSHOT_S=45
TINY=${GPU_CHECK_TINY:-}
TINY_S=${TINY_S:-25}                     # a busy machine measures few cells in that
MAX_FILES=8                              # in OUT_DIR, per call
MAX_BYTES=$((${MAX_FILE_MIB:-15} << 20)) # per file
SITE=${SITE_DIR:-/tmp/tokbench-site}
python=${PYTHON:-python3}
is_dry=

# shellcheck source=scripts/gpu_check_steps
source scripts/gpu_check_steps

say() { printf '== %s\n' "$*"; }

install_wheels() {
    if [[ -z $TINY && ! -e $SITE/.complete ]] && compgen -G '.whl/*.whl' >/dev/null; then
        "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
            --target "$SITE" .whl/*.whl
        touch "$SITE/.complete"
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

# measure CONFIG [SETTING…] [-- SETTING…]: those behind the -- hold on a CPU alone, when the plumbing is tried out. A record
# that has begun is gone on with. Loading and compiling count into the budget, so that a step ends when it says.
measure() {
    local config=$1 setting settings=() tiny=()
    shift
    [[ -n $TINY ]] || ((step_s > CLOSE_S)) ||
        { echo "gpu_check: $name: $step_s s are too few: $CLOSE_S go to the end of a record" >&2; return 2; }
    while (($#)) && [[ $1 != -- ]]; do settings+=("$1"); shift; done
    if (($#)); then shift; tiny=("$@"); fi
    settings+=("budget.total=$((step_s - CLOSE_S))s" budget.cold=0s)
    [[ -z $TINY ]] || settings+=(device=cpu "budget.total=${TINY_S}s" budget.cold=60s stop.warmup_cap=1s
        'workload.prompt_tokens=[16]' workload.output_tokens=8 'load.static_batch=[1, 2]' 'exclude=[]'
        'engine.options={compile_backend: eager}' "${tiny[@]}")
    [[ -z $TINY || -z $small ]] || config=$small
    if [[ -n $is_dry ]]; then
        printf '%s\t%s' "$name" "$config"
        printf '\t%s' "${settings[@]//$'\n'/}"
        echo
        return
    fi
    if grep -qs trial_started "$record/events.jsonl"; then
        tokbench run --resume "$record"
        return
    fi
    rm -rf "$record" # nothing was measured: there is nothing to go on with
    local asked=()
    for setting in "${settings[@]}"; do asked+=(--set "$setting"); done
    tokbench run "$config" --out "$record" "${asked[@]}" "${flags[@]}"
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
    if [[ ! -d $record ]]; then
        { printf '# %s\n\n```\n' "$name"; tail -c 200000 "$folder/$name.log"; printf '```\n'; } >"$out/.part"
        put "$out/$name.report.md"
        return
    fi
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

# How long a step may take: as it is asked for, or as it stands above, while the call has so much left.
set_limit() {
    local left=$((LIMIT_S - PACK_S - SECONDS))
    step_s=${asked_s[$1]:-${SECONDS_OF[$1]}}
    [[ -z $TINY ]] || step_s=$left # a CPU takes its own time
    ((step_s <= left && step_s > 20)) && (($(find "$out" -type f | wc -l) + 2 <= MAX_FILES))
}

run_step() {
    local name=$1 folder=runs/gpu-$1 record=runs/gpu-$1/record code=0 started=$SECONDS packer flags=() small=
    mkdir -p runs
    restore "$name"
    if is_complete; then
        say "$name: complete (exit code $(<"$folder/exit_code")), skipped"
        return
    fi
    if ! set_limit "$name"; then
        later+=("$name")
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

choose() { # NAME[:SECONDS]…: sets `chosen` and `asked_s`
    local asked name
    for asked; do
        name=${asked%%:*}
        [[ " ${STEPS[*]} " == *" $name "* ]] || { echo "gpu_check: no step '$name'; there are: ${STEPS[*]}" >&2; exit 2; }
        chosen+=("$name")
        [[ $asked == "$name" ]] && continue
        [[ ${asked#*:} =~ ^[1-9][0-9]*$ ]] || { echo "gpu_check: $asked: behind the colon stand seconds" >&2; exit 2; }
        asked_s[$name]=${asked#*:}
    done
    ((${#chosen[@]})) || chosen=("${STEPS[@]}")
}

print_commands() {
    local name step_s flags=() small= is_dry=yes
    for name in "${chosen[@]}"; do
        step_s=${asked_s[$name]:-${SECONDS_OF[$name]}}
        [[ $name == doctor || $name == first || $name == tests || $name == quick ]] || "step_$name"
    done
}

main() {
    local chosen=() failed=() later=() name step_s
    local -A asked_s=()
    case ${1:-} in
    --list)
        for name in "${STEPS[@]}"; do echo "$name ${SECONDS_OF[$name]}"; done
        return
        ;;
    --commands) choose "${@:2}"; print_commands; return ;;
    '' | -*) echo "usage: scripts/gpu_check.sh OUT_DIR [STEP[:SECONDS]…] | --list | --commands [STEP…]" >&2; exit 2 ;;
    esac
    choose "${@:2}"
    mkdir -p "$1"
    out=$(realpath "$1")
    install_wheels
    for name in "${chosen[@]}"; do run_step "$name"; done
    ((!${#later[@]})) || say "no room left in this call for: ${later[*]}; call again with them"
    say "done after $SECONDS s; failed: ${failed[*]:-none}"
    ((${#failed[@]} == 0))
}

main "$@"
