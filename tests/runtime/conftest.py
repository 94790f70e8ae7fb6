"""A small tokenizer of Gemma's kind, and a small model file that holds it."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING

import pytest
import sentencepiece

from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.config import EncoderConfig

if TYPE_CHECKING:
    from pathlib import Path

PIECES = 896

CONFIG = EncoderConfig(
    layers=2,
    hidden=64,
    ffn=64,
    heads=2,
    kv_heads=1,
    head_dim=64,
    vocab=PIECES,
    max_tokens=64,
    window=4,
    full_attention_layers=(1,),
    rope_theta_sliding=10_000.0,
    rope_theta_full=1_000_000.0,
    rms_norm_eps=1e-6,
    bos_id=2,
    eos_id=1,
)


@pytest.fixture(scope="session")
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
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        byte_fallback=True,
        character_coverage=1.0,
        split_by_whitespace=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=CONFIG.eos_id,
        bos_id=CONFIG.bos_id,
        unk_id=3,
        bos_piece="<bos>",
        eos_piece="<eos>",
        user_defined_symbols=["[multimodal]", "<unused0>", "<h1>", "\n", "\n\n", "\t", "▁▁", "▁▁▁", "▁▁▁▁"],
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: bytes) -> Path:
    """A small int8 model file of random weights with that tokenizer."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    write_synthetic_model(path, CONFIG, "int8", tokenizer_model=tokenizer_model)
    return path
