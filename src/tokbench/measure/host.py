"""The machine around the device: processor, memory, system, container, scheduler, battery.

It only reads, always below `root`; what cannot be seen is None. It never names the host or its user.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

import psutil

from tokbench.measure import cgroup
from tokbench.measure.cgroup import read_text
from tokbench.record.facts import HostFacts

SHARED_PID_CONTAINERS = ("apptainer",)
"""Containers that keep the host's process numbers, so that other users' processes stay visible."""

_CGROUP_CONTAINERS = (
    ("kubernetes", re.compile(r"kubepods")),
    ("docker", re.compile(r"/docker[-/]")),
    ("podman", re.compile(r"libpod[-_]")),
    ("lxc", re.compile(r"/lxc(\.payload)?[./]")),
    ("containerd", re.compile(r"containerd")),
)
_HYPERVISOR_NAMES = (
    ("kvm", ("kvm", "qemu", "amazon ec2", "google", "openstack", "digitalocean", "hetzner")),
    ("vmware", ("vmware",)),
    ("virtualbox", ("virtualbox", "innotek")),
    ("hyperv", ("microsoft corporation",)),
    ("xen", ("xen",)),
)
_SCHEDULERS = (("slurm", "SLURM_JOB_ID"), ("pbs", "PBS_JOBID"), ("lsf", "LSB_JOBID"))


def read_host_facts(
    root: Path = Path("/"), environ: Mapping[str, str] = os.environ, affinity_cores: int | None = None
) -> HostFacts:
    """Read the machine below `root`; `affinity_cores` is asked of the kernel where it is not given."""
    logical = logical_cores(root)
    affinity = _affinity_cores() if affinity_cores is None else affinity_cores
    quota = cgroup.cpu_quota_cores(root)
    container = container_kind(root, environ)
    machine = hypervisor(root)
    return HostFacts(
        hostname_sha256=_hostname_digest(root),
        cpu_name=cpu_name(root),
        physical_cores=_physical_cores(root),
        logical_cores=logical,
        usable_cores=cgroup.usable_cores(logical, affinity, quota),
        memory_bytes=memory_bytes(root),
        memory_limit_bytes=cgroup.memory_limit_bytes(root),
        os_name=_os_name(root),
        kernel=read_text(root / "proc/sys/kernel/osrelease") or platform.release(),
        python=platform.python_version(),
        virtualisation=wsl_version(root) or ("container" if container else machine),
        container=container,
        scheduler=_scheduler(environ),
        on_battery=on_battery(root),
        cpu_governor=_cpu_governor(root),
        notes=_notes(quota, logical, affinity, machine if container else None),
    )


def cpu_name(root: Path) -> str:
    """The processor's marketing name, or what the platform calls it."""
    text = read_text(root / "proc/cpuinfo") or ""
    for key in ("model name", "Model", "Hardware", "cpu model"):
        match = re.search(rf"^{key}\s*:\s*(.+)$", text, flags=re.MULTILINE)
        if match:
            return match.group(1).strip()
    return platform.processor() or platform.machine()


def logical_cores(root: Path) -> int:
    """Hardware threads that the system has, whoever may use them."""
    listed = re.findall(r"^processor\s*:", read_text(root / "proc/cpuinfo") or "", flags=re.MULTILINE)
    return len(listed) or os.cpu_count() or 1


def memory_bytes(root: Path) -> int:
    """All memory of the machine, whatever this process may use of it."""
    listed = _meminfo_bytes(root, "MemTotal")
    return int(psutil.virtual_memory().total) if listed is None else listed


def free_memory_bytes(root: Path) -> int:
    """What a new process may take without swapping, below the group's limit where one is set."""
    listed = _meminfo_bytes(root, "MemAvailable")
    free = int(psutil.virtual_memory().available) if listed is None else listed
    limit, used = cgroup.memory_limit_bytes(root), cgroup.memory_used_bytes(root)
    return free if limit is None or used is None else min(free, limit - used)


def last_cache_bytes(root: Path) -> int | None:
    """The largest cache that the first core sees; None where the system does not list caches.

    Source: docs.kernel.org, ABI/testing/sysfs-devices-system-cpu, cache/index3/size.
    """
    found = []
    for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with contextlib.suppress(OSError, ValueError):
            text = path.read_text().strip()
            found.append(int(text.removesuffix("K").removesuffix("M")) << (20 if text.endswith("M") else 10))
    return max(found, default=None)


def container_kind(root: Path, environ: Mapping[str, str]) -> str | None:
    """Which container this runs in, None where no sign of one was found."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if "APPTAINER_CONTAINER" in environ or "SINGULARITY_CONTAINER" in environ:
        return "apptainer"
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    groups = read_text(root / "proc/self/cgroup") or ""
    named = next((kind for kind, pattern in _CGROUP_CONTAINERS if pattern.search(groups)), None)
    return named or environ.get("container") or None


def hides_host_processes(container: str | None) -> bool:
    """Whether processes outside this container cannot be seen from within."""
    return container is not None and container not in SHARED_PID_CONTAINERS


def wsl_version(root: Path) -> str | None:
    """`wsl2` or `wsl1` under Windows, None elsewhere."""
    version = read_text(root / "proc/version") or ""
    if "microsoft" not in version.lower():
        return None
    return "wsl1" if "-Microsoft" in version else "wsl2"


def hypervisor(root: Path) -> str | None:
    """The virtual machine's kind; `unknown hypervisor` where only the processor admits to one."""
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", read_text(root / "proc/cpuinfo") or "", flags=re.MULTILINE)
    maker = (read_text(root / "sys/class/dmi/id/sys_vendor") or "").lower()
    product = (read_text(root / "sys/class/dmi/id/product_name") or "").lower()
    # A maker's name also stands on bare machines (EC2 metal, Surface); the product or the processor flag decides.
    names = f"{maker} {product}" if flags else product
    for kind, words in _HYPERVISOR_NAMES:
        if any(word in names for word in words):
            return kind
    if "qemu" in maker:
        return "kvm"
    return "unknown hypervisor" if flags else None


def on_battery(root: Path) -> bool | None:
    """Whether the machine runs from its battery; None where it shows no power supply."""
    states = []
    for supply in sorted(_folders(root / "sys/class/power_supply")):
        if read_text(supply / "scope") == "Device":
            continue
        kind = read_text(supply / "type")
        online, status = read_text(supply / "online"), read_text(supply / "status")
        if kind in ("Mains", "USB") and online is not None:
            states.append("plugged" if online == "1" else "unplugged")
        if kind == "Battery" and status is not None:
            states.append("discharging" if status == "Discharging" else "charged")
    if "plugged" in states:
        return False
    if "discharging" in states:
        return True
    return False if "charged" in states else None


def _folders(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []


def _affinity_cores() -> int | None:
    """Cores that the scheduler may give this process; None on systems without affinity."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return None


def _meminfo_bytes(root: Path, key: str) -> int | None:
    match = re.search(rf"^{key}:\s*(\d+) kB", read_text(root / "proc/meminfo") or "", flags=re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _physical_cores(root: Path) -> int | None:
    """Cores without their hardware threads, counted by the kernel's sibling lists, else by /proc/cpuinfo."""
    lists = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    siblings = {text for text in (read_text(path) for path in lists) if text}
    if siblings:
        return len(siblings)
    text = read_text(root / "proc/cpuinfo") or ""
    packages = re.findall(r"^physical id\s*:\s*(\d+)", text, flags=re.MULTILINE)
    cores = re.findall(r"^core id\s*:\s*(\d+)", text, flags=re.MULTILINE)
    return len(set(zip(packages, cores, strict=False))) or None


def _hostname_digest(root: Path) -> str:
    name = read_text(root / "proc/sys/kernel/hostname") or platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _os_name(root: Path) -> str:
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)"?', read_text(root / "etc/os-release") or "", flags=re.MULTILINE)
    return match.group(1) if match else platform.platform(terse=True)


def _scheduler(environ: Mapping[str, str]) -> str | None:
    for kind, variable in _SCHEDULERS:
        if environ.get(variable):
            return f"{kind} job {environ[variable]}"
    return None


def _cpu_governor(root: Path) -> str | None:
    """The frequency governor; every one in use where the cores differ."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    governors = sorted({text for text in (read_text(path) for path in paths) if text})
    return ", ".join(governors) or None


def _notes(quota: float | None, logical: int, affinity: int | None, machine: str | None) -> tuple[str, ...]:
    notes = []
    if quota is not None:
        notes.append(f"cgroup quota: {quota:.2f} cores")
    if affinity is not None and affinity < logical:
        notes.append(f"affinity: {affinity} of {logical} cores")
    if machine is not None:
        notes.append(f"the container runs in a virtual machine: {machine}")
    return tuple(notes)
