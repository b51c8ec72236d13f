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
    assert lines[9] == (
        "Room on these 2 devices: weights of at most 0.560 bits each (0.572 bits if the weights had all of the "
        "memory); the narrowest dtype that tokbench knows for it, mxfp4, takes 4.25."
    )
    assert "perfect scaling" in lines[11]
    assert lines[12].startswith("int8, int4: linear layers and routed experts, with their scales;")
    assert lines[13] == "Sources:"
    assert lines[14].startswith("  DeepSeek-V3: https://huggingface.co/deepseek-ai/DeepSeek-V3/")
    assert lines[15].startswith("  NVIDIA GeForce RTX 4090: https://")


def test_what_fits_has_room_and_a_ceiling_and_no_line_on_bits() -> None:
    text = say("Llama-3.1-405B-Instruct", "h100", "--count", "16", "--dtype", "bf16")
    (line,) = (line for line in text.splitlines() if line.startswith("bfloat16"))
    assert line.endswith("fits, 465 GB to spare; 11 would do; at most 66.2 tokens/s per user")
    assert "Room on" not in text


def test_json_carries_numbers_assumptions_and_sources() -> None:
    answer = json.loads(say("Llama-3.1-405B-Instruct", "H100", "--json"))
    assert ("NVIDIA H100 SXM", 1, 80e9) == tuple(answer["device"].values())
    assert [("bfloat16", False, 11), ("int8", False, 6), ("int4", False, 4)] == [
        (fit["dtype"], fit["is_fitting"], fit["devices_needed"]) for fit in answer["fits"]
    ]
    assert any("perfect scaling" in text for text in answer["assumed"])
    assert all(source["url"].startswith("https://") for source in answer["sources"])


def test_a_device_without_a_stated_bandwidth_has_no_ceiling() -> None:
    assert "fits, 47.2 GB to spare; no source states the bandwidth" in say("Llama-3.1-8B-Instruct", "SN40L")


@pytest.mark.parametrize(
    ("arguments", "message", "fix"),
    [
        (("DeepSeek-V4", "H100"), "unknown model 'DeepSeek-V4'", "DeepSeek-V3"),
        (("DeepSeek-V3", "RTX 4080"), "unknown device 'RTX 4080'", "NVIDIA GeForce RTX 4090"),
        (("DeepSeek-V3", "LPU"), "'LPU' may mean 2 devices", "Groq LPU v1 (GroqChip), NVIDIA Groq 3 LPU (LP30)"),
        (("DeepSeek-V3", "H100", "--dtype", "bf17"), "unknown dtype 'bf17'", "did you mean bf16?"),
        (("Qwen3-8B", "H100", "--dtype", "mxfp4"), "Qwen3-8B has none", "leave --dtype out"),
        (("Qwen3-8B", "H100", "--count", "0"), "0 devices hold nothing", "--count 1"),
        (("Qwen3-8B", "H100", "--users", "0"), "at least 1", "--users 1"),
        (("Meta-Llama-3-8B-Instruct", "H100", "--context", "9000"), "context of 8,192 tokens, not 9,000", "8192"),
        (("Qwen3-8B", "Maia 100"), "no source states the memory of Microsoft Maia 100", "devices.yaml"),
    ],
)
def test_what_cannot_be_answered_says_what_to_do(arguments: tuple[str, ...], message: str, fix: str) -> None:
    error = refused(*arguments)
    assert message in error.message
    assert error.fix is not None and fix in error.fix
