"""tokbench's engines, the peers' own benches and the libraries' own loops on one CPU, interleaved in rounds.

    python -m benchmarks.engines_cpu [--rounds 5] [--out reports/engines-cpu] [--only NAME…] [--seed 1] [--resume]

Nothing else may run on the machine. Environments come of `scripts/peers` ($TOKBENCH_PEERS, else .peers). Writes
rows.jsonl while it runs and engines.json, engines.md and engines.png after each round; `--rounds 0` writes them anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.engines_cpu.rounds import Starter, read_finished, run_rounds
from benchmarks.engines_cpu.rows import Places, Row, all_rows
from benchmarks.engines_cpu.tables import gap_table, gather, main_table, own_table
from benchmarks.engines_cpu.writing import write_all
from benchmarks.harness_vs_bare import SOURCE
from tokbench.measure.environments import FOLDER, VARIABLE
from tokbench.measure.models import cache_folder, parse_source, resolve_model

CPUINFO = Path("/proc/cpuinfo")


def find_places() -> Places:
    """Weights from tokbench's cache (fetched and converted where they are not there) and the environments."""
    cache = cache_folder(os.environ)
    models = {
        dtype: resolve_model(parse_source(SOURCE), "pretrained", dtype, cache=cache, environ=os.environ, report=print)
        for dtype in ("float32", "gguf")
    }
    folder, gguf = models["float32"].folder, models["gguf"].gguf
    if folder is None or gguf is None:
        raise SystemExit("the weights of the demo model are not there")
    peers = Path(os.environ.get(VARIABLE) or FOLDER).expanduser().resolve()
    return Places(peers, folder, gguf, len(os.sched_getaffinity(0)))


def machine_facts() -> dict[str, Any]:
    """What the speeds depend on and no row tells."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = told.get("flags", "").split()
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
    return {
        "cpu": told.get("model name", platform.machine()),
        "instructions": [name for name in wanted if name in flags],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def commit() -> str | None:
    """The checkout's commit; None outside one."""
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


def chosen_rows(only: list[str] | None) -> tuple[Row, ...]:
    """All, or those that were named."""
    rows = all_rows()
    unknown = set(only or ()) - {row.name for row in rows}
    if unknown:
        raise SystemExit(f"no row {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in rows)}")
    return tuple(row for row in rows if not only or row.name in only)


def say(text: str) -> None:
    """Print at once: a round takes minutes."""
    print(text, flush=True)


def main() -> None:
    """Run the rounds, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("reports/engines-cpu"))
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on with the rows.jsonl that is in OUT")
    given = parser.parse_args()
    rows, path = chosen_rows(given.only), given.out / "rows.jsonl"
    if path.exists() and not given.resume and given.rounds:
        raise SystemExit(f"{path} exists: --resume goes on with it")
    given.out.mkdir(parents=True, exist_ok=True)
    places = find_places()
    facts = {
        "command": shlex.join(["python", "-m", "benchmarks.engines_cpu", *sys.argv[1:]]),
        "seed": given.seed,
        "threads": places.threads,
        "machine": machine_facts(),
        "commit": commit(),
    }
    start = Starter(places, say)
    if not given.rounds:  # what was measured keeps the facts that it was measured with
        found = json.loads((given.out / "engines.json").read_text(encoding="utf-8"))
        facts = {name: found[name] for name in facts}
    for number in range(given.rounds):
        run_rounds(rows, [number], given.seed, path, start)
        _write(given.out, facts)
    _write(given.out, facts)
    of = gather(all_rows(), read_finished(path))
    for lines in (main_table(of), own_table(of), gap_table(of)):
        say("\n".join(["", *lines]))


def _write(out: Path, facts: dict[str, Any]) -> None:
    done = read_finished(out / "rows.jsonl")
    write_all(out, gather(all_rows(), done), done, facts)


if __name__ == "__main__":
    main()
