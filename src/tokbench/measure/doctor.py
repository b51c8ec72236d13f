"""`tokbench doctor`: what can be measured on this machine, what is missing, and how to get it.

It works without torch, reads settings and never changes one, and prints no secret: only whether one is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokbench.errors import PlugError
from tokbench.measure import doctor_devices, doctor_energy, host
from tokbench.measure.engines import describe, how_to_get
from tokbench.measure.environments import find_environment
from tokbench.measure.findings import Finding, Surroundings, surroundings_here
from tokbench.measure.nvml import read_driver
from tokbench.measure.probe import read_torch
from tokbench.record.facts import DeviceFacts, HostFacts
from tokbench.record.spec import EngineSpec
from tokbench.units import BYTES, format_value

_PACKAGES = (
    ("torch", "the transformers engine, compiled mode and every device but endpoints"),
    ("transformers", "the transformers engine and tokenizers"),
    ("accelerate", "loading weights straight onto a device"),
    ("safetensors", "reading weights"),
    ("gguf", "GGUF files"),
    ("huggingface_hub", "`model: hf:…`"),
    ("nvidia-ml-py", "energy, power and clocks of NVIDIA cards"),
    ("matplotlib", "figures in reports"),
)
_COMPILERS = ("g++", "clang++", "c++")
_LOW_DISK_BYTES = 20 * 10**9
"""An 8-billion-parameter model in bfloat16 takes 16 GB."""
_LOW_MEMORY_BYTES = 4 * 10**9
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def examine(around: Surroundings | None = None) -> tuple[Finding, ...]:
    """Look at everything a run may need; a check that cannot look says `unknown`."""
    here = surroundings_here() if around is None else around
    driver = read_driver(here.nvml)
    facts = host.read_host_facts(here.root, here.environ)
    hides = host.hides_host_processes(facts.container)
    gpus: tuple[DeviceFacts, ...] = ()
    try:
        reading = read_torch(here.runner)
    except PlugError as error:
        devices = [Finding(topic="device", status="missing", what=error.message, remedy=error.fix)]
        devices += doctor_devices.driver_findings(None, driver)
        cards = [card.uuid for card in driver.cards]
    else:
        gpus = doctor_devices.enriched(reading, here.nvml, hides)
        devices = doctor_devices.device_findings(gpus, reading.build, driver)
        cards = [gpu.uuid for gpu in gpus if gpu.kind == "cuda" and gpu.uuid is not None]
    return (
        *devices,
        *doctor_energy.energy_findings(here, cards, driver, any(gpu.kind == "rocm" for gpu in gpus)),
        *doctor_energy.clock_findings(here, cards),
        *_memory(here, facts),
        *_packages(here),
        *_engines(here),
        _compiler(here),
        *_hub(here),
        _disk(here),
        *_host(facts, has_gpu=bool(driver.cards) or any(gpu.kind in ("cuda", "rocm") for gpu in gpus)),
    )


def render_plain(findings: Sequence[Finding]) -> str:
    """One line per finding, its remedy below it, and a count at the end."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<8}{finding.topic:<{width}}  {finding.what}")
        if finding.remedy is not None:
            lines.append(f"{'':<{8 + width}}  → {finding.remedy}")
    counts = {status: sum(finding.status == status for finding in findings) for status in _statuses(findings)}
    lines.append(", ".join(f"{count} {status}" for status, count in counts.items()))
    return "\n".join(lines) + "\n"


def _statuses(findings: Sequence[Finding]) -> list[str]:
    return [
        status
        for status in ("ok", "warning", "missing", "unknown")
        if any(finding.status == status for finding in findings)
    ]


def _memory(here: Surroundings, facts: HostFacts) -> list[Finding]:
    free = host.free_memory_bytes(here.root)
    limit = facts.memory_limit_bytes
    within = f", limited to {format_value(limit, BYTES)} by the cgroup" if limit is not None else ""
    text = f"host: {format_value(free, BYTES)} free of {format_value(facts.memory_bytes, BYTES)}{within}"
    if free < _LOW_MEMORY_BYTES:
        remedy = "end other programs, or choose a small model; a model is loaded through host memory"
        return [Finding(topic="memory", status="warning", what=text, remedy=remedy)]
    return [Finding(topic="memory", status="ok", what=text)]


def _packages(here: Surroundings) -> list[Finding]:
    findings = []
    for name, use in _PACKAGES:
        version = here.version_of(name)
        if version is not None:
            findings.append(Finding(topic="package", status="ok", what=f"{name} {version}"))
            continue
        extra = here.extra_of(name)
        remedy = f"pip install 'tokbench[{extra}]'" if extra else f"pip install {name}"
        what = f"{name} is not installed: needed for {use}"
        findings.append(Finding(topic="package", status="missing", what=what, remedy=remedy))
    return findings


def _engines(here: Surroundings) -> list[Finding]:
    """Engines in environments of their own; one that is not built is no lack, `tokbench engines` lists it."""
    findings = []
    for engine in describe():
        if not engine.lives_apart:
            continue
        try:
            found = find_environment(EngineSpec(kind=engine.kind), engine.packages, here.environ)
        except PlugError as error:
            what = f"{engine.kind}: {error.message}"
            findings.append(Finding(topic="engine", status="missing", what=what, remedy=error.fix))
            continue
        versions = ", ".join(f"{name} {version}" for name, version in found.versions.items() if version)
        if not found.missing:
            what = f"{engine.kind}: {versions} in {found.python}"
            findings.append(Finding(topic="engine", status="ok", what=what))
        elif found.is_own:
            what = f"{engine.kind}: {', '.join(found.missing)} is not installed in {found.python}"
            remedy = how_to_get(engine, found)
            findings.append(Finding(topic="engine", status="missing", what=what, remedy=remedy))
    return findings


def _compiler(here: Surroundings) -> Finding:
    named = here.environ.get("CXX")
    for program in (*((named,) if named else ()), *_COMPILERS):
        path = here.which(program)
        if path is not None:
            return Finding(topic="compiler", status="ok", what=f"C++ compiler for torch.compile on the CPU: {path}")
    return Finding(
        topic="compiler",
        status="missing",
        what="no C++ compiler (g++, clang++): the compiled mode cannot run on the CPU",
        remedy="apt-get install g++, or `mode: eager`",
    )


def _hub(here: Surroundings) -> list[Finding]:
    """Whether a token is set, never which."""
    cache = _cache_folder(here)
    stored = Path(here.environ.get("HF_TOKEN_PATH") or cache / "token")
    has_token = any(here.environ.get(name) for name in _TOKEN_VARIABLES) or stored.is_file()
    if has_token:
        token = Finding(topic="hub", status="ok", what="Hugging Face token: set")
    else:
        token = Finding(
            topic="hub",
            status="warning",
            what="Hugging Face token: not set; gated models (Llama, Gemma) cannot be downloaded",
            remedy="hf auth login, or set HF_TOKEN",
        )
    if here.environ.get("HF_HUB_OFFLINE", "").upper() not in ("1", "ON", "YES", "TRUE"):
        return [token]
    offline = Finding(
        topic="hub",
        status="warning",
        what="HF_HUB_OFFLINE is set: only models already in the cache can be used",
        remedy="unset HF_HUB_OFFLINE to download",
    )
    return [token, offline]


def _cache_folder(here: Surroundings) -> Path:
    """HF_HOME as huggingface_hub resolves it, without importing it."""
    home = here.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser()
    base = here.environ.get("XDG_CACHE_HOME") or str(Path(here.environ.get("HOME") or Path.home()) / ".cache")
    return Path(base).expanduser() / "huggingface"


def _disk(here: Surroundings) -> Finding:
    named = here.environ.get("HF_HUB_CACHE")
    folder = Path(named).expanduser() if named else _cache_folder(here) / "hub"
    free = here.free_disk_bytes(folder)
    if free is None:
        return Finding(topic="disk", status="unknown", what=f"free space for {folder} cannot be read")
    text = f"{format_value(free, BYTES)} free for models in {folder}"
    if free < _LOW_DISK_BYTES:
        remedy = "set HF_HOME to a larger disk; an 8B model in bfloat16 takes 16 GB"
        return Finding(topic="disk", status="warning", what=text, remedy=remedy)
    return Finding(topic="disk", status="ok", what=text)


def _host(facts: HostFacts, *, has_gpu: bool) -> list[Finding]:
    cores = f"{facts.usable_cores} of {facts.logical_cores} logical cores usable"
    notes = "".join(f"; {note}" for note in facts.notes)
    rows = [Finding(topic="host", status="ok", what=f"{facts.cpu_name}, {cores}, {facts.os_name}{notes}")]
    if facts.container is not None and has_gpu and host.hides_host_processes(facts.container):
        what = f"container ({facts.container}): other users of a GPU cannot be seen from here"
        rows.append(_note("host", what, "run on the host, or with --pid=host, to see them"))
    elif facts.container is not None:
        rows.append(Finding(topic="host", status="ok", what=f"container ({facts.container})"))
    if facts.virtualisation in ("wsl1", "wsl2"):
        rows.append(_note("host", f"{facts.virtualisation}: no RAPL, and NVML tells only part", "run on Linux itself"))
    if facts.scheduler is not None:
        rows.append(Finding(topic="host", status="ok", what=f"inside a {facts.scheduler}: its cores and memory count"))
    if facts.on_battery:
        rows.append(_note("host", "runs on battery: clocks are held down", "plug in the power supply"))
    if facts.cpu_governor is not None and facts.cpu_governor != "performance":
        what = f"CPU frequency governor: {facts.cpu_governor}"
        rows.append(_note("host", what, "sudo cpupower frequency-set -g performance (tokbench never changes it)"))
    return rows


def _note(topic: str, what: str, remedy: str | None) -> Finding:
    return Finding(topic=topic, status="warning", what=what, remedy=remedy)
