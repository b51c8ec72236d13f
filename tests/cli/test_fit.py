"""`tokbench fit`: the answer in words and in JSON, its sources, and what is said of names that are not known."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from tokbench.cli.more import register
from tokbench.errors import SpecError

app = typer.Typer()
register(app)


def say(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["fit", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def refused(*arguments: str) -> SpecError:
    error = CliRunner().invoke(app, ["fit", *arguments]).exception
    assert isinstance(error, SpecError)
    return error


def test_deepseek_v3_on_two_rtx_4090() -> None:
    lines = say("DeepSeek-V3", "RTX 4090", "--count", "2").splitlines()
    assert lines[:6] == [
        "DeepSeek-V3 on 2 x NVIDIA GeForce RTX 4090",
        "  671 billion parameters, 36.63 billion of them read per token, 48.0 GB of memory by datasheet, "
        "1 user at 4,096 tokens of context",
        "",
        "dtype     weights  KV cache  activations  needed   answer",
        "bfloat16  1.34 TB  288 MB    731 MB       1.34 TB  does not fit, 1.30 TB too many; 56 devices would hold it",
        "int8      673 GB   288 MB    731 MB       674 GB   does not fit, 626 GB too many; 29 devices would hold it",
    ]
    assert lines[7] == (
        "ternary   135 GB   288 MB    731 MB       136 GB   does not fit, 87.8 GB too many; 6 devices would hold it"
    )
    assert lines[10] == (
        "Room on these 2 devices: weights of at most 0.560 bits each (0.572 bits if the weights had all of the "
        "memory); the narrowest dtype that tokbench knows for it, ternary, takes 1.58."
    )
    assert "perfect scaling" in lines[12]
    assert lines[13].startswith("int8, int4, ternary: linear layers and routed experts, with their scales;")
    assert "hypothetical" in lines[14] and "https://arxiv.org/abs/2402.17764" in lines[14]
    assert lines[15] == "Sources:"
    assert lines[16].startswith("  DeepSeek-V3: https://huggingface.co/deepseek-ai/DeepSeek-V3/")
    assert lines[17].startswith("  NVIDIA GeForce RTX 4090: https://")


def test_what_fits_has_room_and_a_ceiling_and_no_line_on_bits() -> None:
    text = say("Llama-3.1-405B-Instruct", "h100 sxm", "--count", "16", "--dtype", "bf16")
    (line,) = (line for line in text.splitlines() if line.startswith("bfloat16"))
    assert line.endswith("fits, 465 GB to spare; 11 would do; at most 66.2 tokens/s per user")
    assert "Room on" not in text


def test_json_carries_numbers_assumptions_and_sources() -> None:
    answer = json.loads(say("Llama-3.1-405B-Instruct", "H100 SXM", "--json"))
    assert ("NVIDIA H100 SXM", 1, 80e9) == tuple(answer["device"].values())
    assert [("bfloat16", False, 11), ("int8", False, 6), ("int4", False, 4), ("ternary", False, 2)] == [
        (fit["dtype"], fit["is_fitting"], fit["devices_needed"]) for fit in answer["fits"]
    ]
    assert any("perfect scaling" in text for text in answer["assumed"])
    assert all(source["url"].startswith("https://") for source in answer["sources"])


def test_a_target_says_what_it_takes_and_that_it_is_projected() -> None:
    """139.1 GB a token at 4,096 of context are 209 TB/s: 63 times 3.35 TB/s, rounded up."""
    arguments = ("Llama-3.1-70B-Instruct", "H100 SXM", "--dtype", "bf16", "--target-tokens-per-s", "1500")
    lines = say(*arguments).splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("Projected"))
    assert lines[start : start + 4] == [
        "Projected, not measured: 1,500 tokens/s for each user, with 100 % of the datasheet's 3.35 TB/s used and a "
        "scaling efficiency of 1.",
        "",
        "dtype     read per step  bandwidth  devices to hold it  devices for the speed",
        "bfloat16  140 GB         211 TB/s   2                   63",
    ]
    shares = ("--bandwidth-used", "0.6", "--scaling-efficiency", "0.75")
    (line,) = (line for line in say(*arguments, *shares).splitlines() if line.startswith("bfloat16  140"))
    assert line.endswith("140")  # 63 devices and a bit less, over 0.6 and 0.75
    assert "Projected" not in say(*arguments[:4])


def test_json_has_the_target_and_its_label() -> None:
    asked = ("Llama-3.1-8B-Instruct", "H100 SXM", "--dtype", "fp8", "--json")
    assert json.loads(say(*asked))["target"] is None
    target = json.loads(say(*asked, "--target-tokens-per-s", "100"))["target"]
    assert (100.0, 1.0, 1.0, True) == (
        target["tokens_per_s"],
        target["bandwidth_used_ratio"],
        target["scaling_efficiency"],
        target["is_projected"],
    )
    need = target["needs"]["fp8"]
    assert 1 == need["devices_for_memory"] == need["devices_for_speed"]
    assert need["bytes_per_s"] == 100 * need["step_bytes"]


@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("H100 SXM", ("--target-tokens-per-s", "0"), "a speed is above 0, not 0"),
        ("H100 SXM", ("--target-tokens-per-s", "inf"), "a speed is above 0, not inf"),
        ("H100 SXM", ("--target-tokens-per-s", "9", "--bandwidth-used", "60"), "at most 1, not 60"),
        ("H100 SXM", ("--target-tokens-per-s", "9", "--scaling-efficiency", "0"), "above 0 and at most 1, not 0"),
        ("SN40L", ("--target-tokens-per-s", "9"), "no source states the memory bandwidth of SambaNova SN40L"),
    ],
)
def test_a_target_that_cannot_be_answered_is_refused(device: str, options: tuple[str, ...], message: str) -> None:
    error = refused("Llama-3.1-8B-Instruct", device, *options)
    assert message in error.message
    assert error.fix


def test_a_device_without_a_stated_bandwidth_has_no_ceiling() -> None:
    assert "fits, 47.2 GB to spare; no source states the bandwidth" in say("Llama-3.1-8B-Instruct", "SN40L")


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (("DeepSeek-V4", "H100 SXM"), "unknown model 'DeepSeek-V4'", "DeepSeek-V3"),
        (("DeepSeek-V3", "RTX 4080"), "unknown device 'RTX 4080'", "NVIDIA GeForce RTX 4090"),
        (("Qwen3-8B", "H100"), "'H100' may mean 2 devices", "NVIDIA H100 SXM, NVIDIA H100 PCIe"),
        (("DeepSeek-V3", "LPU"), "'LPU' may mean 2 devices", "Groq LPU v1 (GroqChip), NVIDIA Groq 3 LPU (LP30)"),
        (("DeepSeek-V3", "H100 SXM", "--dtype", "bf17"), "unknown dtype 'bf17'", "did you mean bf16?"),
        (("Qwen3-8B", "H100 SXM", "--dtype", "mxfp4"), "Qwen3-8B has none", "leave --dtype out"),
        (("Qwen3-8B", "H100 SXM", "--count", "0"), "0 devices hold nothing", "--count 1"),
        (("Qwen3-8B", "H100 SXM", "--users", "0"), "at least 1", "--users 1"),
        (("Meta-Llama-3-8B-Instruct", "H100 SXM", "--context", "9000"), "context of 8,192 tokens, not 9,000", "8192"),
        (("Qwen3-8B", "H100 SXM", "--bandwidth-used", "0.5"), "belong to a target", "name the speed"),
        (("Qwen3-8B", "M3 Max"), "no source states the memory of Apple M3 Max", "devices.yaml"),
    ],
)
def test_what_cannot_be_answered_says_what_to_do(arguments: tuple[str, ...], message: str, fix: str) -> None:
    error = refused(*arguments)
    assert message in error.message
    assert error.fix is not None and fix in error.fix
