"""Writes the trained model as sentence-transformers lays out a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from .student import (
    EPS,
    FFN,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    MAX_TOKENS,
    ROPE_THETA,
    VOCAB,
    WINDOW,
    Student,
    kind_of,
)

# As EmbeddingGemma has them, which takes both texts of a pair for queries. These are trained, and texts without any.
PROMPTS = {"query": "query: ", "document": "document: ", "STS": "query: "}
BOS, EOS = 2, 1


def write_checkpoint(target: Path, folder: Path, model: Student) -> None:
    """Writes the model as sentence-transformers lays it out."""

    def write(name: str, value: Any) -> None:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")

    write("config.json", {
        "architectures": ["Gemma3TextModel"], "attention_bias": False, "attn_logit_softcapping": None,
        "final_logit_softcapping": None, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0,
        "head_dim": HEAD_DIM, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": HIDDEN, "intermediate_size": FFN,
        "layer_types": [kind_of(i) for i in range(LAYERS)], "max_position_embeddings": MAX_TOKENS,
        "model_type": "gemma3_text", "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS, "query_pre_attn_scalar": HEAD_DIM, "rms_norm_eps": EPS,
        "rope_local_base_freq": ROPE_THETA["sliding_attention"], "rope_scaling": None,
        "rope_theta": ROPE_THETA["full_attention"], "sliding_window": WINDOW, "use_bidirectional_attention": True,
        "vocab_size": VOCAB,
    })  # fmt: skip
    kinds = (
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
        ("Dense", "2_Dense"),
        ("Dense", "3_Dense"),
        ("Normalize", "4_Normalize"),
    )
    write(
        "modules.json",
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds)
        ],
    )
    write(
        "1_Pooling/config.json",
        {
            "word_embedding_dimension": HIDDEN,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "include_prompt": True,
        },
    )
    write(
        "config_sentence_transformers.json",
        {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    write("sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    tokenizer = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": True}
    write("tokenizer_config.json", tokenizer)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    for name in ("2_Dense", "3_Dense"):
        weight = tensors.pop(f"dense.{int(name[0]) - 2}.weight")
        write(
            f"{name}/config.json",
            {
                "in_features": weight.shape[1],
                "out_features": weight.shape[0],
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        save_file({"linear.weight": weight}, target / name / "model.safetensors", {"format": "pt"})
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    (target / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
