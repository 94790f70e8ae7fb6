"""A tiny checkpoint in the published layout: random weights, and a tokenizer of Gemma's kind."""

from __future__ import annotations

import functools
import io
import json
import random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import sentencepiece

from embgemma.export.synthetic import write_synthetic_model
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from embgemma.kernels.config import EncoderConfig

if TYPE_CHECKING:
    from pathlib import Path

    from embgemma.kernels.model_file import Scheme

PIECES = 896

# As small as the layout allows, and with every feature of the real model: two kinds of attention layer, several query
# heads over one key/value head, widths that differ from each other.
CONFIG = EncoderConfig(
    layers=3,
    hidden=128,
    ffn=192,
    heads=3,
    kv_heads=1,
    head_dim=64,
    vocab=PIECES,
    max_tokens=64,
    window=4,
    full_attention_layers=(2,),
    rope_theta_sliding=10_000.0,
    rope_theta_full=1_000_000.0,
    rms_norm_eps=1e-6,
    bos_id=2,
    eos_id=1,
)
DENSE_WIDTH = 320  # between the two dense layers
PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}

Dtype = Literal["float64", "float32", "float16", "bfloat16"]
Float32 = npt.NDArray[np.float32]


def encoder_tensors(config: EncoderConfig, seed: int = 0) -> dict[str, Float32]:
    """Random weights under transformers' names, exact in bfloat16 and float16. Norms are stored as w of 1 + w."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, deviation: float) -> Float32:
        return to_bfloat16((rng.standard_normal(shape) * deviation).astype(np.float32))

    def matrix(rows: int, columns: int) -> Float32:
        return normal(rows, columns, deviation=columns**-0.5)

    hidden, ffn = config.hidden, config.ffn
    tensors = {"embed_tokens.weight": normal(config.vocab, hidden, deviation=hidden**-0.5)}
    for i in range(config.layers):
        layer = {
            "input_layernorm": normal(hidden, deviation=0.2),
            "self_attn.q_proj": matrix(config.q_width, hidden),
            "self_attn.k_proj": matrix(config.kv_width, hidden),
            "self_attn.v_proj": matrix(config.kv_width, hidden),
            "self_attn.q_norm": normal(config.head_dim, deviation=0.2),
            "self_attn.k_norm": normal(config.head_dim, deviation=0.2),
            "self_attn.o_proj": matrix(hidden, config.q_width),
            "post_attention_layernorm": normal(hidden, deviation=0.2),
            "pre_feedforward_layernorm": normal(hidden, deviation=0.2),
            "mlp.gate_proj": matrix(ffn, hidden),
            "mlp.up_proj": matrix(ffn, hidden),
            "mlp.down_proj": matrix(hidden, ffn),
            "post_feedforward_layernorm": normal(hidden, deviation=0.2),
        }
        tensors.update({f"layers.{i}.{name}.weight": tensor for name, tensor in layer.items()})
    return {**tensors, "norm.weight": normal(hidden, deviation=0.2)}


def dense_tensors(config: EncoderConfig, seed: int = 1) -> tuple[Float32, Float32]:
    """Random weights (out, in) of the two dense layers after pooling, exact in bfloat16 and float16."""
    rng = np.random.default_rng(seed)
    shapes = ((DENSE_WIDTH, config.hidden), (config.hidden, DENSE_WIDTH))
    first, second = ((rng.standard_normal(shape) * shape[1] ** -0.5).astype(np.float32) for shape in shapes)
    return to_bfloat16(first), to_bfloat16(second)


def to_bfloat16(values: Float32) -> Float32:
    """Values cut to 8 significant bits, and to 0 where float16 would lose some of them."""
    cut = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.asarray(np.where(np.abs(cut) < 2.0**-14, np.float32(0), cut))


def write_checkpoint(
    folder: Path,
    config: EncoderConfig = CONFIG,
    *,
    dtype: Dtype = "float32",
    shards: int = 1,
    prefix: str = "",
) -> Path:
    """Writes the checkpoint of `encoder_tensors` and `dense_tensors` into `folder`, which it makes and gives back.

    With more than one shard there is an index; prefix goes before the name of every tensor.
    """
    folder.mkdir(parents=True)
    tensors = {prefix + name: tensor for name, tensor in encoder_tensors(config).items()}
    if shards == 1:
        write_tensors(folder / "model.safetensors", tensors, dtype)
    else:
        files = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(tensors)}
        for file in set(files.values()):
            write_tensors(folder / file, {name: tensors[name] for name in tensors if files[name] == file}, dtype)
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": files})
    for name, weight in zip(("2_Dense", "3_Dense"), dense_tensors(config), strict=True):
        write_json(
            folder / name / "config.json",
            {
                "in_features": weight.shape[1],
                "out_features": weight.shape[0],
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        )
        write_tensors(folder / name / "model.safetensors", {"linear.weight": weight}, dtype)
    for path, value in json_files(config).items():
        write_json(folder / path, value)
    (folder / "tokenizer.model").write_bytes(tokenizer_model())
    return folder


def json_files(config: EncoderConfig) -> dict[str, Any]:
    """The checkpoint's other JSON files, as published."""
    types = ["full_attention" if config.is_full(i) else "sliding_attention" for i in range(config.layers)]
    modules = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense")
    return {
        "config.json": {
            "_sliding_window_pattern": 6,
            "architectures": ["Gemma3TextModel"],
            "attention_bias": False,
            "attn_logit_softcapping": None,
            "bos_token_id": config.bos_id,
            "eos_token_id": config.eos_id,
            "final_logit_softcapping": None,
            "head_dim": config.head_dim,
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_size": config.hidden,
            "intermediate_size": config.ffn,
            "layer_types": types,
            "max_position_embeddings": config.max_tokens,
            "model_type": "gemma3_text",
            "num_attention_heads": config.heads,
            "num_hidden_layers": config.layers,
            "num_key_value_heads": config.kv_heads,
            "query_pre_attn_scalar": config.head_dim,
            "rms_norm_eps": config.rms_norm_eps,
            "rope_local_base_freq": config.rope_theta_sliding,
            "rope_scaling": None,
            "rope_theta": config.rope_theta_full,
            "sliding_window": 2 * config.window,
            "use_bidirectional_attention": True,
            "vocab_size": config.vocab,
        },
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate((*modules, ("Normalize", "4_Normalize")))
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "include_prompt": True,
        },
        "config_sentence_transformers.json": {
            "prompts": PROMPTS,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "sentence_bert_config.json": {"max_seq_length": config.max_tokens, "do_lower_case": False},
        "tokenizer_config.json": {"add_bos_token": True, "add_eos_token": True},
    }


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, and makes the folder for it."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Float32], dtype: Dtype = "float32") -> None:
    """Writes a safetensors file, as the published library does (whose NumPy side knows no bfloat16)."""
    path.parent.mkdir(exist_ok=True)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, tensor in tensors.items():
        begin = len(data)
        if dtype == "bfloat16":
            data += (np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype(np.uint16).tobytes()
        else:
            data += tensor.astype(dtype).tobytes()
        dtype_name = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}[dtype]
        header[name] = {"dtype": dtype_name, "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_model(path: Path, config: EncoderConfig = CONFIG, scheme: Scheme = "mixed") -> Path:
    """Writes a model file of random weights with both tokenizers, and gives its path back."""
    write_synthetic_model(path, config, scheme, tokenizer_model=tokenizer_model(), tokenizer_table=tokenizer_table())
    return path


@functools.cache
def tokenizer_table() -> bytes:
    """The table that the C engine tokenizes with, of `tokenizer_model`."""
    return build_tokenizer_table(tokenizer_model()).tobytes()


@functools.cache
def tokenizer_model() -> bytes:
    """A SentencePiece model with the settings of Gemma's, trained on a few words and characters of many scripts."""
    rng = random.Random(1)
    words = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not")
    lines = [" ".join(rng.choices(words, k=20)) for _ in range(500)]
    lines += ["".join(rng.choices("etaoin shrdlu", k=60)) for _ in range(200)]
    lines += [
        bytes(range(32, 127)).decode(),
        "éüßøş абвг αβγ אבג ابت कखग กขค 你好世界 ひらカナ 한국 😀🇩🇪 ∀∃ \u0301\u0308",
    ]
    return train_tokenizer(
        lines,
        vocab_size=PIECES,
        split_by_whitespace=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        pad_id=0,
        eos_id=CONFIG.eos_id,
        bos_id=CONFIG.bos_id,
        unk_id=3,
        bos_piece="<bos>",
        eos_piece="<eos>",
        user_defined_symbols=["[multimodal]", "<unused0>", "<h1>", "\n", "\n\n", "\t", "▁▁", "▁▁▁", "▁▁▁▁"],
    )


def train_tokenizer(lines: list[str], **settings: Any) -> bytes:
    """A SentencePiece model trained on these lines, with the settings that every tokenizer of Gemma's kind has."""
    fixed: dict[str, Any] = {
        "model_type": "bpe",
        "byte_fallback": True,
        "character_coverage": 1.0,
        "add_dummy_prefix": False,
        "remove_extra_whitespaces": False,
        "normalization_rule_name": "identity",
        "num_threads": 1,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **{**fixed, **settings})
    return model.getvalue()


def tokenizer_json() -> dict[str, Any]:
    """The same tokenizer as the Hugging Face library stores it."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model())
    names = [pieces.id_to_piece(i) for i in range(PIECES)]
    vocab = {name: i for i, name in enumerate(names)}
    special = {name: i < 4 for i, name in enumerate(names[:13])}  # and whether it is a control symbol
    merges = [("▁" * i, "▁" * (run - i)) for run in (4, 3, 2) for i in range(1, run)]
    for name in (name for name in names if name not in special and not pieces.is_byte(vocab[name])):
        merges += [(name[:i], name[i:]) for i in range(1, len(name)) if name[:i] in vocab and name[i:] in vocab]
    ends = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ("<bos>", "<eos>")]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": vocab[name], "content": name, **flags, "special": control} for name, control in special.items()
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                name: {"id": name, "ids": [vocab[name]], "tokens": [name]} for name in ("<bos>", "<eos>")
            },
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
