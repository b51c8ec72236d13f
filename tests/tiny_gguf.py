"""A GGUF file of a Llama of random weights, and the request that opens it."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tokbench.measure.engines import EngineRequest
from tokbench.record.spec import EngineSpec, ModelSpec, Option

HIDDEN, LAYERS, HEADS, KV_HEADS, WIDTH, VOCABULARY, CONTEXT = 64, 2, 4, 2, 128, 300, 512
KV_WIDTH = HIDDEN // HEADS * KV_HEADS


def write_gguf(path: Path, vocabulary: int = VOCABULARY) -> None:
    """A Llama of random weights: linear layers in F16, embedding and norms in F32, head and embedding tied."""
    draw = np.random.default_rng(1)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(vocabulary)
    writer.add_tokenizer_model("llama")
    bytes_of_text = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_of_text, *(f"w{n}" for n in range(vocabulary - 259))]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (vocabulary - 259)]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * vocabulary)
    writer.add_token_types(kinds)

    def add(name: str, *shape: int) -> None:
        kind = np.float16 if len(shape) == 2 and name != "token_embd" else np.float32
        drawn = np.ones(shape) if len(shape) == 1 else draw.normal(0, 0.05, shape)
        writer.add_tensor(f"{name}.weight", drawn.astype(kind))

    add("token_embd", vocabulary, HIDDEN)
    add("output_norm", HIDDEN)
    for layer in range(LAYERS):
        for name, shape in {
            "attn_norm": (HIDDEN,),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (KV_WIDTH, HIDDEN),
            "attn_v": (KV_WIDTH, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_norm": (HIDDEN,),
            "ffn_gate": (WIDTH, HIDDEN),
            "ffn_up": (WIDTH, HIDDEN),
            "ffn_down": (HIDDEN, WIDTH),
        }.items():
            add(f"blk.{layer}.{name}", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def asked(folder: Path, **options: Option) -> EngineRequest:
    return EngineRequest(
        model=ModelSpec(source=f"path:{folder}", dtype="gguf"),
        engine=EngineSpec(kind="llama_cpp", options=options),
        device="cpu",
        model_name="tiny",
        config_json=None,
        weights_folder=folder,
        threads=1,
        seed=1,
    )
