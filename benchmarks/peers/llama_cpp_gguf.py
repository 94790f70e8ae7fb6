"""The checkpoint as a GGUF file of llama.cpp's architecture gemma-embedding, without a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from ...export.checkpoint.checkpoint import Checkpoint

ARCHITECTURE = "gemma-embedding"
MEAN_POOLING = gguf.PoolingType.MEAN

# transformers' names within a layer
LAYER_TENSORS = (
    *(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "o_proj")),
    *(f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj")),
    *("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
)
DENSE_TENSORS = ("dense_2", "dense_3")


def write_gguf(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the float32 model."""
    config = checkpoint.config
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_context_length(config.max_tokens)
    writer.add_embedding_length(config.hidden)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta_full)
    writer.add_float32(f"{ARCHITECTURE}.rope.freq_base_swa", config.rope_theta_sliding)
    writer.add_sliding_window(2 * config.window)  # it halves what it reads
    writer.add_sliding_window_pattern([not config.is_full(layer) for layer in range(config.layers)])
    writer.add_pooling_type(MEAN_POOLING)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab)
    for name, dense in zip(DENSE_TENSORS, checkpoint.dense, strict=True):
        out_features, in_features = dense.read("linear.weight").shape
        writer.add_dense_features_dims(name, in_features, out_features)
    for name, tensor in _tensors(checkpoint):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Every tensor by its GGUF name; norms as the multiplier itself."""
    layers = range(checkpoint.config.layers)
    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA_EMBEDDING, len(layers))
    for name in ("embed_tokens", "norm", *(f"layers.{layer}.{part}" for layer in layers for part in LAYER_TENSORS)):
        tensor = checkpoint.weights.read(f"{name}.weight")
        yield f"{theirs.get_name(name)}.weight", tensor + np.float32(1) if name.endswith("norm") else tensor
    for name, dense in zip(DENSE_TENSORS, checkpoint.dense, strict=True):
        yield f"{name}.weight", dense.read("linear.weight")
