"""The doctor on faked machines: a workstation, one without torch, a container, ROCm, a laptop. No GPU, no torch."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tokbench
from tokbench.measure.device import TorchBuild, TorchReading
from tokbench.measure.doctor import examine, render_plain
from tokbench.measure.findings import Finding, Surroundings, extra_in
from tokbench.measure.nvml import NvmlModule
from tokbench.measure.probe import Runner
from tokbench.record.facts import DeviceFacts

GB = 10**9
CPU = DeviceFacts(kind="cpu", name="Xeon", memory_bytes=64 * GB, free_memory_bytes=60 * GB)
H100 = DeviceFacts(kind="cuda", name="H100", index=0, uuid="GPU-a", memory_bytes=80 * GB, free_memory_bytes=79 * GB)
CUDA_BUILD = TorchBuild(version="2.13.0", cuda="12.6")


class NVMLError_NotSupported(Exception):  # noqa: N801, N818
    pass


class FakeNvml:
    """One H100; every answer can be replaced, an exception class is raised."""

    NVMLError = NVMLError_NotSupported
    NVML_SUCCESS, NVML_FI_DEV_POWER_INSTANT, NVML_POWER_SCOPE_GPU = 0, 186, 0
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU, nvmlMemory_v2 = 1, 2, 0, 2  # noqa: N815

    def __init__(self, cuda: int = 12060, **answers: Any) -> None:
        plain: dict[str, Any] = {
            "SystemGetDriverVersion": "560.35.03",
            "SystemGetCudaDriverVersion_v2": cuda,
            "DeviceGetCount": 1,
            "DeviceGetHandleByIndex": "handle",
            "DeviceGetHandleByUUID": "handle",
            "DeviceGetUUID": "GPU-a",
            "DeviceGetName": "H100",
            "DeviceGetTotalEnergyConsumption": 5,
            "DeviceGetPowerUsage": 70_000,
            "DeviceGetClockInfo": 345,
            "DeviceGetCurrentClocksEventReasons": 1,
            "DeviceGetPersistenceMode": 1,
            "DeviceGetFieldValues": [SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=70_000))],
            "DeviceGetEnforcedPowerLimit": 700_000,
            "DeviceGetComputeRunningProcesses_v3": [],
            "DeviceGetMemoryInfo": SimpleNamespace(free=79 * GB, used=GB // 2),
        }
        self.answers = plain | answers

    def nvmlInit(self) -> None:  # noqa: N802
        """Started."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        value = self.answers.get(name.removeprefix("nvml"), NVMLError_NotSupported)

        def answer(*_: Any, **__: Any) -> Any:
            if isinstance(value, type):
                raise value(name)
            return value

        return answer


def runner(*devices: DeviceFacts, build: TorchBuild = CUDA_BUILD) -> Runner:
    text = TorchReading(build=build, devices=devices).model_dump_json()
    return lambda command, limit_s: subprocess.CompletedProcess(command, 0, text, "")


def without_torch(command: tuple[str, ...], limit_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 3, "", "torch is not installed")


def workstation(root: Path, **changes: Any) -> Surroundings:
    """A bare Linux machine with one H100, readable RAPL and everything installed."""
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon\n",
        "proc/meminfo": "MemTotal: 62500000 kB\nMemAvailable: 58000000 kB\n",
        "proc/version": "Linux version 6.8.0",
        "proc/self/cgroup": "0::/",
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04"\n',
        "sys/class/powercap/intel-rapl:0/name": "package-0\n",
        "sys/class/powercap/intel-rapl:0/energy_uj": "123\n",
    }
    for name, text in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    here = Surroundings(
        root=root,
        environ={"HF_TOKEN": "hf_secret", "HOME": "/home/me"},
        runner=runner(H100, CPU),
        nvml=FakeNvml(),
        version_of=lambda name: "1.0",
        extra_of=lambda name: "local" if name in ("torch", "gguf") else None,
        which=lambda program: f"/usr/bin/{program}",
        free_disk_bytes=lambda path: 500 * GB,
    )
    return dataclasses.replace(here, **changes)


def about(topic: str, here: Surroundings) -> list[Finding]:
    return [finding for finding in examine(here) if finding.topic == topic]


def only(topic: str, here: Surroundings) -> Finding:
    (finding,) = about(topic, here)
    return finding


def with_environ(here: Surroundings, environ: Mapping[str, str]) -> Surroundings:
    return dataclasses.replace(here, environ=environ)


def test_a_machine_with_everything_is_all_ok(tmp_path: Path) -> None:
    found = examine(workstation(tmp_path))
    assert [finding for finding in found if finding.status != "ok" or finding.remedy is not None] == []
    assert [finding.what for finding in found if finding.topic in ("device", "driver", "energy", "clocks")] == [
        "cuda:0 H100; memory 80.0 GB, free 79.0 GB; power limit 700 W; other processes: 0",
        "cpu Xeon; memory 64.0 GB, free 60.0 GB",
        "NVIDIA driver 560.35.03, runs CUDA up to 12.6; torch 2.13.0 (CUDA 12.6)",
        "nvml GPU-a: board, nvml_total_energy; power limit 700 W",
        "rapl package-0: package, rapl_energy_uj",
        "GPU-a: clocks readable, SM 345 MHz now, held down by: gpu_idle",
    ]


def test_torch_absent_is_missing_with_the_extra_and_the_rest_is_still_examined(tmp_path: Path) -> None:
    here = workstation(tmp_path, runner=without_torch, version_of=lambda name: None)
    device = only("device", here)
    assert (
        device.status,
        device.what,
        device.remedy,
    ) == ("missing", "torch is not installed", "pip install 'tokbench[local]'")
    assert only("driver", here).what == "NVIDIA driver 560.35.03, runs CUDA up to 12.6"
    assert next(finding.what for finding in about("energy", here)).startswith("nvml GPU-a: board, nvml_total_energy")
    remedies = {finding.what.split()[0]: finding.remedy for finding in about("package", here)}
    assert (
        remedies["torch"],
        remedies["transformers"],
    ) == ("pip install 'tokbench[local]'", "pip install transformers")


def test_a_cpu_only_torch_beside_a_card(tmp_path: Path) -> None:
    driver = only("driver", workstation(tmp_path, runner=runner(CPU, build=TorchBuild(version="2.13.0+cpu"))))
    assert driver.status == "missing"
    assert driver.what == (
        "NVIDIA driver 560.35.03, runs CUDA up to 12.6; torch 2.13.0+cpu (CPU only) cannot use the card"
    )
    assert driver.remedy is not None and "cu126 build of torch" in driver.remedy


def test_a_driver_older_than_torchs_cuda(tmp_path: Path) -> None:
    build = TorchBuild(version="2.13.0", cuda="13.0", note="driver too old")
    driver = only("driver", workstation(tmp_path, runner=runner(CPU, build=build)))
    assert driver.status == "missing"
    assert driver.remedy is not None and driver.remedy.startswith("update the driver, or install the cu126 build")


def test_cards_hidden_from_torch(tmp_path: Path) -> None:
    driver = only("driver", workstation(tmp_path, runner=runner(CPU)))
    assert (
        driver.status,
        driver.remedy,
    ) == ("warning", "look at CUDA_VISIBLE_DEVICES, and at the permissions of /dev/nvidia*")


def test_no_gpu_and_no_driver_is_a_fine_cpu_machine(tmp_path: Path) -> None:
    here = workstation(tmp_path, nvml=None, runner=runner(CPU, build=TorchBuild(version="2.13.0+cpu")))
    assert [finding.what for finding in about("device", here)] == [
        "cpu Xeon; memory 64.0 GB, free 60.0 GB",
        "no GPU here: runs use the CPU, or an endpoint",
    ]
    assert only("driver", here).what == (
        "no NVIDIA driver in use (nvidia-ml-py is not installed); torch 2.13.0+cpu (CPU only)"
    )


def test_a_gpu_without_nvml_has_no_energy(tmp_path: Path) -> None:
    here = workstation(tmp_path, nvml=None)
    assert (only("driver", here).status, only("driver", here).remedy) == ("missing", "pip install nvidia-ml-py")
    assert [finding.status for finding in about("clocks", here)] == ["unknown"]


def test_a_busy_card_is_a_warning(tmp_path: Path) -> None:
    busy = FakeNvml(DeviceGetComputeRunningProcesses_v3=[SimpleNamespace(pid=1)])
    device = about("device", workstation(tmp_path, nvml=busy))[0]
    assert device.status == "warning"
    assert device.what.endswith("other processes: 1; busy: 1 other process")


def test_rapl_that_may_not_be_read_names_the_command_and_what_it_exposes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = workstation(tmp_path, nvml=None, runner=runner(CPU))
    read = Path.read_text

    def refuse(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            raise PermissionError(path)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    energy = only("energy", here)
    assert (energy.status, energy.what) == ("missing", "rapl: permission denied (1 of 1 RAPL counters: intel-rapl:0)")
    assert energy.remedy is not None
    zones = f"{tmp_path}/sys/class/powercap/intel-rapl:*/energy_uj"
    assert energy.remedy.startswith(f"sudo chmod o+r {zones} — any local user")


def test_no_energy_source_at_all(tmp_path: Path) -> None:
    here = workstation(tmp_path, nvml=None, runner=runner(CPU))
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()
    assert only("energy", here).status == "missing"


def test_a_card_without_counter_can_be_polled(tmp_path: Path) -> None:
    energy = about(
        "energy", workstation(tmp_path, nvml=FakeNvml(DeviceGetTotalEnergyConsumption=NVMLError_NotSupported))
    )
    assert energy[0].status == "warning"
    assert energy[0].what.endswith("no energy counter: not supported by this card or driver")
    assert energy[0].remedy == "power alone, without a counter: it is polled and added up, which is less exact"


def test_persistence_mode_off_is_said_and_not_changed(tmp_path: Path) -> None:
    clocks = about("clocks", workstation(tmp_path, nvml=FakeNvml(DeviceGetPersistenceMode=0)))
    assert [finding.status for finding in clocks] == ["ok", "warning"]
    assert clocks[1].remedy == "sudo nvidia-smi -i GPU-a -pm 1 (tokbench never changes it)"


@pytest.mark.parametrize(("installed", "status"), [("7.0.2", "ok"), (None, "missing")])
def test_rocm_needs_amdsmi(tmp_path: Path, installed: str | None, status: str) -> None:
    amd = DeviceFacts(kind="rocm", name="MI300X", index=0, memory_bytes=192 * GB, free_memory_bytes=190 * GB)
    here = workstation(
        tmp_path,
        nvml=None,
        runner=runner(amd, CPU, build=TorchBuild(version="2.13.0", hip="7.2")),
        version_of=lambda name: installed if name == "amdsmi" else "1.0",
    )
    assert about("energy", here)[0].status == status
    assert about("driver", here) == []
    assert about("device", here)[0].what == "rocm:0 MI300X; memory 192 GB, free 190 GB; other processes: unknown"


def test_no_compiler_means_no_compiled_mode(tmp_path: Path) -> None:
    compiler = only("compiler", workstation(tmp_path, which=lambda program: None))
    assert (compiler.status, compiler.remedy) == ("missing", "apt-get install g++, or `mode: eager`")


def test_the_token_is_never_printed(tmp_path: Path) -> None:
    text = render_plain(examine(workstation(tmp_path)))
    assert "Hugging Face token: set" in text
    assert "hf_secret" not in text


def test_no_token_and_offline(tmp_path: Path) -> None:
    here = with_environ(workstation(tmp_path), {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")})
    assert [finding.status for finding in about("hub", here)] == ["warning", "warning"]
    assert only("disk", here).what == f"500 GB free for models in {tmp_path}/hf/hub"


@pytest.mark.parametrize(("free_bytes", "status"), [(5 * GB, "warning"), (None, "unknown")])
def test_disk_space(tmp_path: Path, free_bytes: int | None, status: str) -> None:
    assert only("disk", workstation(tmp_path, free_disk_bytes=lambda path: free_bytes)).status == status


def test_a_container_with_a_card_hides_other_users(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    here = workstation(tmp_path)
    assert about("device", here)[0].what.endswith("other processes: unknown (unknown: container)")
    assert "container (docker): other users of a GPU cannot be seen from here" in [
        finding.what for finding in about("host", here)
    ]


def test_slurm_wsl2_battery_and_governor_are_noted(tmp_path: Path) -> None:
    here = with_environ(workstation(tmp_path), {"SLURM_JOB_ID": "123", "HF_TOKEN": "x"})
    for name, text in {
        "proc/version": "Linux version 5.15-microsoft-standard-WSL2",
        "sys/class/power_supply/BAT0/type": "Battery",
        "sys/class/power_supply/BAT0/status": "Discharging",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert [finding.what for finding in about("host", here)][1:] == [
        "wsl2: no RAPL, and NVML tells only part",
        "inside a slurm job 123: its cores and memory count",
        "runs on battery: clocks are held down",
        "CPU frequency governor: powersave",
    ]


def test_plain_text() -> None:
    text = render_plain(
        [
            Finding(topic="device", status="ok", what="cpu Xeon"),
            Finding(topic="energy", status="missing", what="none", remedy="buy one"),
        ]
    )
    assert text == ("ok      device  cpu Xeon\nmissing energy  none\n                → buy one\n1 ok, 1 missing\n")


@pytest.mark.parametrize(
    ("name", "extra"), [("torch", "local"), ("nvidia_ml.py", "gpu"), ("rich", None), ("mypy", "dev")]
)
def test_the_extra_is_read_from_the_packages_own_metadata(name: str, extra: str | None) -> None:
    requirements = [
        "rich>=13",
        "torch>=2.11; extra == 'local'",
        "mypy>=1.15 ; extra == 'dev'",
        'nvidia-ml-py; python_version > "3" and extra == "gpu"',
    ]
    assert extra_in(requirements, name) == extra


def test_the_parent_loads_no_torch() -> None:
    code = "import sys, tokbench.measure.doctor; sys.exit('torch' in sys.modules or 'pynvml' in sys.modules)"
    path = str(Path(tokbench.__file__).parents[1])
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False).returncode == 0


def test_the_fake_is_an_nvml_module() -> None:
    nvml: NvmlModule = FakeNvml()
    assert nvml.nvmlSystemGetDriverVersion() == "560.35.03"
