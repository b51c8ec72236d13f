"""Facts of scripted machines and models: what a record of a test is true of."""

from __future__ import annotations

from tokbench.record.facts import CeilingFacts, DeviceFacts, HostFacts

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"
LLAMA_8B_PARAMETERS = 8_030_261_248
LLAMA_8B_CONFIG: dict[str, object] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}

HOST = HostFacts(
    hostname_sha256="0123456789ab",
    cpu_name="Scripted CPU",
    physical_cores=4,
    logical_cores=8,
    usable_cores=4,
    memory_bytes=64_000_000_000,
    memory_limit_bytes=None,
    os_name="Linux",
    kernel="6.1",
    python="3.11.2",
)
GPU = DeviceFacts(
    kind="cuda",
    name="NVIDIA H100 80GB HBM3",
    index=0,
    memory_bytes=85_000_000_000,
    power_limit_w=700.0,
    driver_version="580.1",
    runtime_version="13.0",
    foreign_processes=0,
)
CPU = DeviceFacts(kind="cpu", name="Scripted CPU", memory_bytes=64_000_000_000)


def ceilings(read_bytes_per_s: float | None = 2e12, matmul_flops_per_s: float | None = 5e14) -> CeilingFacts:
    """Measured ceilings for bfloat16."""
    return CeilingFacts(
        read_bytes_per_s=read_bytes_per_s,
        matmul_flops_per_s=matmul_flops_per_s,
        dtype="bfloat16",
        buffer_bytes=1 << 30,
        repetitions=9,
        method="sum of a buffer of 1 GiB; product of two 4096 x 4096 matrices",
    )
