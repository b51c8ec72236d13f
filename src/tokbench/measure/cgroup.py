"""What the control groups of Linux allow this process: processor time and memory, in version 1 and version 2.

It must never change a limit, and it never guesses one: a limit that is not set, or cannot be seen, is None.
"""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

CGROUP_MOUNT = Path("sys/fs/cgroup")
_NO_LIMIT_BYTES = 2**60
"""Version 1 writes 'no limit' as the largest page-aligned integer; nothing real is this large."""


def read_text(path: Path) -> str | None:
    """The stripped text of a file, None where it is absent or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "").strip()
    except OSError:
        return None


def memory_limit_bytes(root: Path) -> int | None:
    """The smallest memory limit on the way from this process's group up to the top."""
    limits = [
        *(_bytes(read_text(folder / "memory.max")) for folder in _folders_v2(root)),
        *(_bytes(read_text(folder / "memory.limit_in_bytes")) for folder in _folders_v1(root, "memory")),
    ]
    return min((limit for limit in limits if limit is not None), default=None)


def memory_used_bytes(root: Path) -> int | None:
    """What counts against the limit now, without file pages that the kernel drops first."""
    for folders, usage, reclaimable in (
        (_folders_v2(root), "memory.current", "inactive_file"),
        (_folders_v1(root, "memory"), "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in folders:
            used = _bytes(read_text(folder / usage))
            if used is not None:
                return used - _stat_bytes(read_text(folder / "memory.stat"), reclaimable)
    return None


def cpu_quota_cores(root: Path) -> float | None:
    """How many cores' time the tightest group on the way up may use, e.g. 1.5."""
    quotas = [_quota_v2(read_text(folder / "cpu.max")) for folder in _folders_v2(root)]
    for folder in _folders_v1(root, "cpu"):
        quotas.append(_quota_v1(read_text(folder / "cpu.cfs_quota_us"), read_text(folder / "cpu.cfs_period_us")))
    return min((quota for quota in quotas if quota is not None), default=None)


def usable_cores(logical_cores: int, affinity_cores: int | None, quota_cores: float | None) -> int:
    """Whole cores that may run at once, at least the one that is running this."""
    allowed = logical_cores if affinity_cores is None else min(logical_cores, affinity_cores)
    if quota_cores is None:
        return allowed
    return min(allowed, math.floor(quota_cores) or 1)


def _memberships(root: Path) -> list[tuple[str, str]]:
    """(controllers, path) per line of /proc/self/cgroup; version 2 has no controllers named."""
    rows = []
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            rows.append((parts[1], parts[2]))
    return rows


def _upwards(mount: Path, path: str) -> list[Path]:
    """The group's folder and all above it, up to the mount; a container may see only the mount itself."""
    names = [part for part in PurePosixPath(path).parts if part not in ("/", "..", ".")]
    return [mount.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def _folders_v2(root: Path) -> list[Path]:
    path = next((path for controllers, path in _memberships(root) if controllers == ""), "/")
    return [folder for mount in (CGROUP_MOUNT, CGROUP_MOUNT / "unified") for folder in _upwards(root / mount, path)]


def _folders_v1(root: Path, controller: str) -> list[Path]:
    for controllers, path in _memberships(root):
        if controller in controllers.split(","):
            return [
                folder
                for name in dict.fromkeys((controller, controllers))
                for folder in _upwards(root / CGROUP_MOUNT / name, path)
            ]
    return [root / CGROUP_MOUNT / controller]


def _bytes(text: str | None) -> int | None:
    if text is None or not text.isdigit():
        return None
    value = int(text)
    return value if value < _NO_LIMIT_BYTES else None


def _stat_bytes(text: str | None, key: str) -> int:
    """A row of memory.stat; a kernel that does not list the row has no such pages to give back."""
    for line in (text or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _quota_v2(text: str | None) -> float | None:
    parts = (text or "").split()
    if len(parts) != 2 or not parts[0].isdigit() or not parts[1].isdigit():
        return None
    return int(parts[0]) / int(parts[1])


def _quota_v1(quota: str | None, period: str | None) -> float | None:
    if quota is None or period is None or not quota.isdigit() or not period.isdigit():
        return None
    return int(quota) / int(period)
