"""Which device a request gets, and what it says when it gets none."""

from __future__ import annotations

import pytest

from tokbench.errors import ExitCode, PlugError
from tokbench.measure.choice import choose_device, torch_device
from tokbench.measure.device import TorchBuild
from tokbench.measure.nvml import CardName, DriverFacts
from tokbench.record.facts import DeviceFacts

GB = 10**9
CPU = DeviceFacts(kind="cpu", name="EPYC", memory_bytes=64 * GB)
MPS = DeviceFacts(kind="mps", name="Apple M3", index=0)
CPU_BUILD = TorchBuild(version="2.13.0+cpu")
CUDA_BUILD = TorchBuild(version="2.13.0", cuda="12.6")
DRIVER = DriverFacts("550.54.15", "12.4", (CardName("GPU-a", "NVIDIA H100"),))


def gpu(index: int, free_gb: int = 80, processes: int | None = 0, note: str | None = None) -> DeviceFacts:
    return DeviceFacts(
        kind="cuda",
        name="H100",
        index=index,
        uuid=f"GPU-{index}",
        memory_bytes=80 * GB,
        free_memory_bytes=free_gb * GB,
        foreign_processes=processes,
        foreign_note=note,
    )


def amd(index: int = 0) -> DeviceFacts:
    return DeviceFacts(kind="rocm", name="MI300X", index=index, memory_bytes=192 * GB, free_memory_bytes=190 * GB)


def refused(request: str, *devices: DeviceFacts, allow_busy: bool = False) -> PlugError:
    with pytest.raises(PlugError) as caught:
        choose_device(request, devices, allow_busy)
    assert caught.value.exit_code == ExitCode.PLUG
    return caught.value


def test_auto_takes_the_idle_card_with_most_free_memory() -> None:
    chosen = choose_device("auto", [gpu(0, 78), gpu(1, 80, processes=1), gpu(2, 79), CPU], False)
    assert (gpu(2, 79), "cuda:2 (H100): most free memory of 2 idle GPUs, request auto") == chosen


def test_auto_of_equal_cards_takes_the_first() -> None:
    assert choose_device("auto", [gpu(0), gpu(1), CPU], False).device.index == 0


def test_a_card_below_nine_tenths_free_is_busy() -> None:
    assert choose_device("auto", [gpu(0, 72), CPU], False).device.index == 0
    assert refused("auto", gpu(0, 71), CPU).message == (
        "the GPU is busy (0 other processes): cuda:0 (H100): 9.00 GB of 80.0 GB in use"
    )


def test_unknown_processes_count_as_idle_and_are_noted() -> None:
    chosen = choose_device("auto", [gpu(0, processes=None, note="unknown: container"), CPU], False)
    assert chosen.why == "cuda:0 (H100): the only GPU, request auto; other processes unknown: container"


def test_a_card_that_looks_busy_comes_last() -> None:
    suspect = gpu(0, 80, None, "looks busy: 63 % utilised, and no process is visible; unknown: container")
    assert choose_device("auto", [suspect, gpu(1, 79)], False).device.index == 1


def test_all_busy_names_the_processes_and_the_option() -> None:
    error = refused("auto", gpu(0, processes=2), gpu(1, 10, processes=1), CPU)
    assert error.message == (
        "all 2 GPUs are busy (3 other processes): cuda:0 (H100): 2 other processes; "
        "cuda:1 (H100): 1 other process, 70.0 GB of 80.0 GB in use"
    )
    assert error.fix is not None and "--allow-busy" in error.fix


def test_busy_is_allowed_when_asked_for_and_said() -> None:
    chosen = choose_device("auto", [gpu(0, processes=2), gpu(1, 10, processes=1)], True)
    assert chosen.device.index == 0
    assert chosen.why == (
        "cuda:0 (H100): most free memory of 2 busy GPUs, request auto; "
        "busy, allowed by --allow-busy (2 other processes)"
    )


def test_a_named_busy_card_is_refused_and_allowed() -> None:
    assert refused("cuda:1", gpu(0), gpu(1, processes=1)).message == "cuda:1 (H100) is busy: 1 other process"
    assert choose_device("cuda:1", [gpu(0), gpu(1, processes=1)], True).why == (
        "cuda:1 (H100): asked for as cuda:1; busy, allowed by --allow-busy (1 other process)"
    )


def test_a_number_that_is_not_here_lists_what_is() -> None:
    error = refused("cuda:7", gpu(0), gpu(1), CPU)
    assert error.message == "no device cuda:7; there is cuda:0 (H100), cuda:1 (H100), cpu (EPYC)"
    assert error.fix == "use 0 to 1"


@pytest.mark.parametrize(("devices", "kind"), [((MPS, CPU), "mps"), ((CPU,), "cpu")])
def test_auto_without_gpu(devices: tuple[DeviceFacts, ...], kind: str) -> None:
    chosen = choose_device("auto", devices, False, CPU_BUILD, DriverFacts(fault="no driver"))
    assert (kind, f"{kind}: torch sees no GPU") == (chosen.device.kind, chosen.why)


@pytest.mark.parametrize("request_", ["auto", "cuda", "cuda:0"])
def test_a_cpu_only_torch_beside_a_gpu_is_an_error(request_: str) -> None:
    with pytest.raises(PlugError) as caught:
        choose_device(request_, [CPU], False, CPU_BUILD, DRIVER)
    assert caught.value.message == (
        "torch has no CUDA: torch 2.13.0+cpu (CPU only), beside 1 NVIDIA card with driver 550.54.15, "
        "which runs CUDA up to 12.4"
    )
    assert caught.value.fix is not None
    assert "the cu126 build of torch" in caught.value.fix


def test_cpu_is_given_when_asked_for_whatever_else_is_here() -> None:
    assert choose_device("cpu", [gpu(0), CPU], False, CPU_BUILD, DRIVER) == (CPU, "cpu: asked for")


def test_a_driver_too_old_for_torch_is_an_error() -> None:
    with pytest.raises(PlugError) as caught:
        choose_device("auto", [CPU], False, TorchBuild(version="2.13.0", cuda="13.0"), DRIVER)
    assert caught.value.message == (
        "torch 2.13.0 (CUDA 13.0) is too new for driver 550.54.15, which runs CUDA up to 12.4"
    )


def test_hidden_cards_are_said_and_auto_goes_on() -> None:
    assert choose_device("auto", [CPU], False, CUDA_BUILD, DRIVER).why == (
        "cpu: torch sees no GPU; the driver has 1 NVIDIA card, but torch is shown none (CUDA_VISIBLE_DEVICES?)"
    )


def test_hidden_cards_that_were_asked_for_are_an_error() -> None:
    with pytest.raises(PlugError, match="torch sees no GPU; the driver has 1 NVIDIA card; there is cpu"):
        choose_device("cuda", [CPU], False, CUDA_BUILD, DRIVER)


@pytest.mark.parametrize("request_", ["auto", "cuda", "cuda:0", "rocm", "rocm:0"])
def test_a_hip_torch_serves_cuda_and_says_rocm(request_: str) -> None:
    chosen = choose_device(request_, [amd(), CPU], False, TorchBuild(version="2.13.0", hip="7.2"))
    assert (chosen.device.kind, torch_device(chosen.device)) == ("rocm", "cuda:0")
    assert chosen.why.endswith("this torch is built for ROCm and calls its devices cuda")


def test_rocm_of_a_cuda_torch_names_the_wheel() -> None:
    error = refused("rocm", gpu(0), CPU)
    assert error.message == "device: rocm, but the installed torch is built for CUDA"
    assert error.fix is not None and "ROCm build of torch" in error.fix


@pytest.mark.parametrize("request_", ["gpu", "cuda:", "cpu:1", "auto:0", "CUDA"])
def test_an_unknown_request_lists_the_known(request_: str) -> None:
    assert refused(request_, CPU).fix == "use auto, cuda, cuda:N, rocm, rocm:N, mps or cpu"


def test_mps_that_is_not_here() -> None:
    assert refused("mps", CPU).message == "no mps device here; there is cpu (EPYC)"
