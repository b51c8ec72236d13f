"""Host facts from a faked root, device facts from a faked torch, and the child process that reads the real one."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tokbench
from tokbench.errors import PlugError
from tokbench.measure import cgroup
from tokbench.measure.device import TorchBuild, TorchReading, device_facts_from_torch, read_torch_module
from tokbench.measure.probe import probe_devices, read_host_facts, read_torch
from tokbench.record.facts import DeviceFacts, HostFacts

GIB = 2**30
CPUINFO = "".join(
    f"processor\t: {thread}\nmodel name\t: Xeon Gold\nphysical id\t: 0\ncore id\t: {thread % 4}\nflags\t\t: fpu sse\n\n"
    for thread in range(8)
)


def host_root(path: Path, **files: str) -> Path:
    """A machine of four cores with two threads each; `__` stands for `/` in the names."""
    plain = {
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": "MemTotal:       33554432 kB\nMemFree: 1 kB\nMemAvailable:   16777216 kB\n",
        "proc/sys/kernel/osrelease": "6.8.0-45-generic\n",
        "proc/sys/kernel/hostname": "node7\n",
        "proc/version": "Linux version 6.8.0-45-generic (buildd@lcy02)\n",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
        "proc/self/cgroup": "0::/\n",
    }
    for name, text in (plain | {name.replace("__", "/"): text for name, text in files.items()}).items():
        write(path, name, text)
    return path


def write(root: Path, name: str, text: str) -> None:
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def facts(root: Path, environ: dict[str, str] | None = None, affinity_cores: int = 8) -> HostFacts:
    return read_host_facts(root, environ or {}, affinity_cores)


def test_a_bare_machine(tmp_path: Path) -> None:
    assert facts(host_root(tmp_path)) == HostFacts(
        hostname_sha256="9be35e6e49c5",
        cpu_name="Xeon Gold",
        physical_cores=4,
        logical_cores=8,
        usable_cores=8,
        memory_bytes=32 * GIB,
        memory_limit_bytes=None,
        os_name="Ubuntu 24.04.1 LTS",
        kernel="6.8.0-45-generic",
        python=".".join(str(part) for part in sys.version_info[:3]),
        virtualisation=None,
        container=None,
        scheduler=None,
        on_battery=None,
        cpu_governor=None,
        notes=(),
    )


def test_cgroup_v2_limits_of_a_container(tmp_path: Path) -> None:
    root = host_root(tmp_path)
    write(root, ".dockerenv", "")
    write(root, "sys/fs/cgroup/memory.max", f"{8 * GIB}\n")
    write(root, "sys/fs/cgroup/cpu.max", "250000 100000\n")
    found = facts(root)
    assert (found.memory_limit_bytes, found.usable_cores, found.virtualisation, found.container) == (
        8 * GIB,
        2,
        "container",
        "docker",
    )
    assert found.notes == ("cgroup quota: 2.50 cores",)


def test_cgroup_v2_takes_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    root = host_root(tmp_path, proc__self__cgroup="0::/user.slice/job.scope\n")
    write(root, "sys/fs/cgroup/user.slice/memory.max", f"{4 * GIB}\n")
    write(root, "sys/fs/cgroup/user.slice/job.scope/memory.max", "max\n")
    write(root, "sys/fs/cgroup/user.slice/job.scope/cpu.max", "max 100000\n")
    assert (facts(root).memory_limit_bytes, facts(root).usable_cores) == (4 * GIB, 8)


def test_cgroup_v1_limits_of_a_container(tmp_path: Path) -> None:
    groups = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n"
    root = host_root(tmp_path, proc__self__cgroup=groups)
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
    write(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    write(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    found = facts(root)
    assert (found.memory_limit_bytes, found.usable_cores, found.container) == (2 * GIB, 1, "docker")
    assert found.notes == ("cgroup quota: 0.50 cores",)


def test_cgroup_v1_without_a_limit_is_none(tmp_path: Path) -> None:
    root = host_root(tmp_path, proc__self__cgroup="4:memory:/\n3:cpu:/\n")
    write(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert (facts(root).memory_limit_bytes, facts(root).usable_cores) == (None, 8)


def test_memory_in_use_leaves_out_file_pages(tmp_path: Path) -> None:
    root = host_root(tmp_path)
    write(root, "sys/fs/cgroup/memory.max", f"{8 * GIB}\n")
    write(root, "sys/fs/cgroup/memory.current", f"{3 * GIB}\n")
    write(root, "sys/fs/cgroup/memory.stat", f"anon 1\ninactive_file {GIB}\n")
    assert cgroup.memory_used_bytes(root) == 2 * GIB
    assert device_facts_from_torch(fake_torch([]), root) == [
        DeviceFacts(kind="cpu", name="Xeon Gold", memory_bytes=8 * GIB, free_memory_bytes=6 * GIB)
    ]


def test_affinity_narrows_the_cores(tmp_path: Path) -> None:
    found = facts(host_root(tmp_path), affinity_cores=3)
    assert (found.usable_cores, found.notes) == (3, ("affinity: 3 of 8 cores",))


@pytest.mark.parametrize(
    ("environ", "scheduler"),
    [({"SLURM_JOB_ID": "123"}, "slurm job 123"), ({"PBS_JOBID": "9.head"}, "pbs job 9.head"), ({}, None)],
)
def test_schedulers(tmp_path: Path, environ: dict[str, str], scheduler: str | None) -> None:
    assert facts(host_root(tmp_path), environ).scheduler == scheduler


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("Linux version 5.15.153.1-microsoft-standard-WSL2 (root@x)", "wsl2"),
        ("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", "wsl1"),
    ],
)
def test_windows_below(tmp_path: Path, version: str, kind: str) -> None:
    assert facts(host_root(tmp_path, proc__version=version)).virtualisation == kind


@pytest.mark.parametrize(
    ("files", "environ", "container"),
    [
        ({"run__.containerenv": ""}, {}, "podman"),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({}, {"APPTAINER_CONTAINER": "/x.sif"}, "apptainer"),
        ({}, {"container": "systemd-nspawn"}, "systemd-nspawn"),
        ({"proc__self__cgroup": "0::/kubepods.slice/pod1\n"}, {}, "kubernetes"),
        ({"proc__self__cgroup": "0::/system.slice/docker.service\n"}, {}, None),
    ],
)
def test_containers(tmp_path: Path, files: dict[str, str], environ: dict[str, str], container: str | None) -> None:
    assert facts(host_root(tmp_path, **files), environ).container == container


@pytest.mark.parametrize(
    ("flags", "vendor", "product", "kind"),
    [
        ("hypervisor", "QEMU", "Standard PC", "kvm"),
        ("hypervisor", "Amazon EC2", "p5.48xlarge", "kvm"),
        ("sse", "Amazon EC2", "g4dn.metal", None),
        ("hypervisor", "", "", "unknown hypervisor"),
        ("sse", "Dell Inc.", "PowerEdge", None),
    ],
)
def test_virtual_machines(tmp_path: Path, flags: str, vendor: str, product: str, kind: str | None) -> None:
    root = host_root(tmp_path, proc__cpuinfo=CPUINFO.replace("fpu sse", f"fpu {flags}"))
    write(root, "sys/class/dmi/id/sys_vendor", vendor)
    write(root, "sys/class/dmi/id/product_name", product)
    assert facts(root).virtualisation == kind


@pytest.mark.parametrize(
    ("online", "status", "scope", "on_battery"),
    [
        ("0", "Discharging", "System", True),
        ("1", "Charging", "System", False),
        ("1", "Discharging", "System", False),
        ("0", "Discharging", "Device", None),
    ],
)
def test_battery(tmp_path: Path, online: str, status: str, scope: str, on_battery: bool | None) -> None:
    root = host_root(tmp_path)
    for name, value in (("type", "Battery"), ("status", status), ("scope", scope)):
        write(root, f"sys/class/power_supply/BAT0/{name}", value)
    write(root, "sys/class/power_supply/AC/type", "Mains")
    write(root, "sys/class/power_supply/AC/online", online)
    assert facts(root).on_battery is on_battery


def test_governors_that_differ_are_all_named(tmp_path: Path) -> None:
    root = host_root(tmp_path)
    for core, governor in enumerate(("powersave", "performance", "powersave")):
        write(root, f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor", governor)
    assert facts(root).cpu_governor == "performance, powersave"


def fake_torch(properties: list[Any], *, cuda: str | None = "12.6", hip: str | None = None) -> Any:
    """A module like torch; free memory is half of each device's."""

    def mem_get_info(index: int) -> tuple[int, int]:
        if properties[index].total_memory == 0:
            raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")
        return properties[index].total_memory // 2, properties[index].total_memory

    return SimpleNamespace(
        __version__="2.13.0",
        version=SimpleNamespace(cuda=cuda, hip=hip),
        cuda=SimpleNamespace(
            is_available=lambda: bool(properties),
            device_count=lambda: len(properties),
            get_device_properties=lambda index: properties[index],
            mem_get_info=mem_get_info,
        ),
        backends=SimpleNamespace(),
    )


def card(uuid: str, **changes: Any) -> Any:
    size = {"total_memory": 80 * GIB, "multi_processor_count": 132}
    plain = {"name": "NVIDIA H100", "uuid": uuid, "major": 9, "minor": 0}
    return SimpleNamespace(**(plain | size | changes))


def test_cuda_devices_in_torchs_order_with_the_drivers_uuid(tmp_path: Path) -> None:
    located = {"pci_domain_id": 0, "pci_bus_id": 0x3B, "pci_device_id": 0, "L2_cache_size": 50 << 20}
    first, second, cpu = device_facts_from_torch(
        fake_torch([card("bbbb-1", **located), card("aaaa-2")]), host_root(tmp_path)
    )
    assert first == DeviceFacts(
        kind="cuda",
        name="NVIDIA H100",
        index=0,
        uuid="GPU-bbbb-1",
        pci_bus_id="00000000:3B:00.0",
        memory_bytes=80 * GIB,
        free_memory_bytes=40 * GIB,
        cache_bytes=50 << 20,
        compute_capability="9.0",
        multiprocessors=132,
        runtime_version="12.6",
    )
    assert (second.uuid, second.index, second.pci_bus_id, cpu.kind) == ("GPU-aaaa-2", 1, None, "cpu")


def test_the_last_cache_of_a_cpu_is_the_largest_that_is_listed(tmp_path: Path) -> None:
    root = host_root(tmp_path)
    assert device_facts_from_torch(fake_torch([]), root)[0].cache_bytes is None
    for index, size in enumerate(("32K", "1024K", "36M")):
        write(root, f"sys/devices/system/cpu/cpu0/cache/index{index}/size", f"{size}\n")
    assert device_facts_from_torch(fake_torch([]), root)[0].cache_bytes == 36 << 20


def test_a_mig_slice_is_known_by_its_name(tmp_path: Path) -> None:
    slice_ = card("cccc-3", name="NVIDIA A100-SXM4-40GB MIG 3g.20gb")
    found = device_facts_from_torch(fake_torch([slice_]), host_root(tmp_path))[0]
    assert (found.uuid, found.is_mig) == ("MIG-cccc-3", True)


def test_hip_makes_the_kind_rocm(tmp_path: Path) -> None:
    digits = "".join(f"{byte:02x}" for byte in b"18c8b3f5a0d1e2f4")
    amd = card(digits, name="AMD Instinct MI300X", gcnArchName="gfx942:sramecc+:xnack-")
    found = device_facts_from_torch(fake_torch([amd], cuda=None, hip="7.2.1"), host_root(tmp_path))[0]
    assert (found.kind, found.index, found.compute_capability, found.runtime_version, found.uuid, found.is_mig) == (
        "rocm",
        0,
        "gfx942",
        "7.2.1",
        "GPU-18c8b3f5a0d1e2f4",
        None,
    )


def test_memory_that_cannot_be_asked_is_none_with_the_drivers_words(tmp_path: Path) -> None:
    found = device_facts_from_torch(fake_torch([card("a", total_memory=0)]), host_root(tmp_path))[0]
    assert found.free_memory_bytes is None
    assert found.foreign_note == "free memory cannot be read: CUDA error: out of memory"


def test_memory_shared_with_the_host_has_no_free_figure(tmp_path: Path) -> None:
    found = device_facts_from_torch(fake_torch([card("a", is_integrated=1)]), host_root(tmp_path))[0]
    assert found.free_memory_bytes is None


def test_a_torch_too_old_for_uuids(tmp_path: Path) -> None:
    old = card("a")
    del old.uuid
    assert device_facts_from_torch(fake_torch([old]), host_root(tmp_path))[0].uuid is None


def test_mps_stands_before_the_cpu(tmp_path: Path) -> None:
    torch = fake_torch([], cuda=None)
    torch.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: True))
    assert [found.kind for found in device_facts_from_torch(torch, host_root(tmp_path))] == ["mps", "cpu"]


def test_the_build_is_read_beside_the_devices(tmp_path: Path) -> None:
    reading = read_torch_module(fake_torch([], cuda="13.0"), host_root(tmp_path))
    assert reading.build == TorchBuild(version="2.13.0", cuda="13.0")


def answering(code: int = 0, stdout: str = "", stderr: str = "") -> Any:
    return lambda command, limit_s: subprocess.CompletedProcess(command, code, stdout, stderr)


def test_torch_absent_names_the_extra() -> None:
    with pytest.raises(PlugError) as caught:
        probe_devices(answering(3, stderr="torch is not installed\n"))
    assert (caught.value.message, caught.value.fix) == ("torch is not installed", "pip install 'tokbench[local]'")


def test_a_crashing_import_shows_its_last_line() -> None:
    stderr = "Traceback (most recent call last):\n  …\nOSError: libcudart.so.12: cannot open shared object file\n"
    with pytest.raises(PlugError, match=r"torch cannot be loaded: OSError: libcudart\.so\.12"):
        read_torch(answering(1, stderr=stderr))


def test_a_killed_child_shows_its_code() -> None:
    with pytest.raises(PlugError, match="it ended with code -11 and no word"):
        read_torch(answering(-11))


def test_a_child_that_prints_nothing_or_hangs_is_an_error() -> None:
    def hang(command: tuple[str, ...], limit_s: float) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, limit_s)

    with pytest.raises(PlugError, match="printed no device list"):
        read_torch(answering(0, stdout="hello\n"))
    with pytest.raises(PlugError, match="within 180 s"):
        read_torch(hang)


def test_the_last_line_of_the_child_is_the_reading() -> None:
    reading = TorchReading(build=TorchBuild(version="2"), devices=(DeviceFacts(kind="cpu", name="Xeon"),))
    assert reading == read_torch(answering(0, stdout=f"a greeting of a plugin\n{reading.model_dump_json()}\n"))


def test_the_child_reads_the_torch_that_is_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch comes with the extra local")
    monkeypatch.setenv("PYTHONPATH", str(Path(tokbench.__file__).parents[1]))
    devices = probe_devices()
    assert devices[-1].kind == "cpu"
    assert devices[-1].memory_bytes is not None and devices[-1].memory_bytes > 0
