"""The facts of one encoder that every backend needs: its shapes and constants."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from .errors import ModelFileError
from .safetensors_file import parse_json, shorten

# Every matrix dimension is a multiple of this: one 64-byte line of int8 weights or activations, which is
# the widest vector register (AVX-512) and a row of an AMX tile.
DIMENSION_GRAIN = 64

# This number of rows of the embedding table, and of its scales, fills whole 64-byte lines in every format.
VOCAB_GRAIN = 64

# Upper bounds, far above any model of the family. A file that claims more is corrupt or hostile, and is refused before
# its numbers size an allocation.
MAX_LAYERS = 256
MAX_DIMENSION = 1 << 16
MAX_VOCABULARY = 1 << 22
MAX_TOKENS = 1 << 17


@dataclass(frozen=True)
class EncoderConfig:
    """Shapes and constants of a bidirectional Gemma 3 text encoder, as stored in a model file.

    Attributes:
        layers: number of transformer layers.
        hidden: width of the residual stream, and of the embedding that comes out.
        ffn: width of the gated feed-forward layer.
        heads, kv_heads, head_dim: attention heads, and how many of them have keys and values of their own.
        vocab: rows of the embedding table.
        max_tokens: longest text, in tokens, `<bos>` and `<eos>` included.
        window: in a sliding layer token i attends to token j iff |i - j| <= window.
        full_attention_layers: layers in which every token attends to every token; the others slide.
        rope_theta_sliding, rope_theta_full: rotary base frequency of the two kinds of layer.
        rms_norm_eps: added to the mean square in every RMSNorm.
        bos_id, eos_id: the tokens around every text.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_tokens: int
    window: int
    full_attention_layers: tuple[int, ...]
    rope_theta_sliding: float
    rope_theta_full: float
    rms_norm_eps: float
    bos_id: int
    eos_id: int

    @property
    def q_width(self) -> int:
        """Columns of the query projection: heads * head_dim."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Columns of the key (or value) projection: kv_heads * head_dim."""
        return self.kv_heads * self.head_dim

    @property
    def qkv_width(self) -> int:
        """Columns of the fused query, key and value projection."""
        return self.q_width + 2 * self.kv_width

    @property
    def embedding_multiplier(self) -> float:
        """What Gemma scales token embeddings by (arXiv 2503.19786): sqrt(hidden). Folded into the stored table."""
        return math.sqrt(self.hidden)

    @property
    def attention_scale(self) -> float:
        """What scores are scaled by: head_dim ** -0.5. Folded into the stored q_norm."""
        return 1 / math.sqrt(self.head_dim)

    def is_full(self, layer: int) -> bool:
        """Whether `layer` attends to all tokens, not to a sliding window."""
        return layer in self.full_attention_layers

    def validate(self) -> EncoderConfig:
        """Returns self if the engine can run these shapes, else raises ModelFileError naming the field."""
        bounds = {
            "layers": (1, MAX_LAYERS, 1),
            "hidden": (DIMENSION_GRAIN, MAX_DIMENSION, DIMENSION_GRAIN),
            "ffn": (DIMENSION_GRAIN, MAX_DIMENSION, DIMENSION_GRAIN),
            "heads": (1, MAX_DIMENSION, 1),
            "kv_heads": (1, MAX_DIMENSION, 1),
            "head_dim": (DIMENSION_GRAIN, MAX_DIMENSION, DIMENSION_GRAIN),
            "vocab": (VOCAB_GRAIN, MAX_VOCABULARY, VOCAB_GRAIN),
            "max_tokens": (2, MAX_TOKENS, 1),
            "window": (0, MAX_TOKENS, 1),
            "bos_id": (0, MAX_VOCABULARY - 1, 1),
            "eos_id": (0, MAX_VOCABULARY - 1, 1),
        }
        for name, (low, high, grain) in bounds.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high or value % grain:
                expected = f"an integer from {low} to {high}" + (f", a multiple of {grain}" if grain > 1 else "")
                raise ModelFileError(f"config field {name!r} is {shorten(value)}; expected {expected}")
        if max(self.bos_id, self.eos_id) >= self.vocab:
            raise ModelFileError(
                f"bos_id {self.bos_id} and eos_id {self.eos_id}: expected below {self.vocab}, the vocab"
            )
        if self.heads % self.kv_heads or self.q_width > MAX_DIMENSION:
            raise ModelFileError(
                f"{self.heads} query heads of {self.head_dim} over {self.kv_heads} key/value heads: expected the "
                f"first a multiple of the second and at most {MAX_DIMENSION} columns"
            )
        for name in ("rope_theta_sliding", "rope_theta_full", "rms_norm_eps"):
            number = getattr(self, name)
            if not isinstance(number, float) or not math.isfinite(number) or number <= 0:
                raise ModelFileError(f"config field {name!r} is {shorten(number)}; expected a positive finite number")
        if any(type(i) is not int or not 0 <= i < self.layers for i in self.full_attention_layers):
            raise ModelFileError(
                f"config field 'full_attention_layers' is {shorten(self.full_attention_layers)}; "
                f"expected layer numbers from 0 to {self.layers - 1}"
            )
        return self

    def to_json(self) -> str:
        """The config as the JSON object that a model file stores."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EncoderConfig:
        """Reads and validates what `to_json` wrote; raises ModelFileError naming the first field that is wrong."""
        raw: Any = parse_json("config", text)
        fields = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(raw, dict) or set(raw) != fields:
            found = shorten(sorted(raw)) if isinstance(raw, dict) else type(raw).__name__
            raise ModelFileError(f"the config has fields {found}; expected exactly {sorted(fields)}")
        full = raw["full_attention_layers"]
        if not isinstance(full, list):
            raise ModelFileError(
                f"config field 'full_attention_layers' is {shorten(full)}; expected a list of layer numbers"
            )
        for name in ("rope_theta_sliding", "rope_theta_full", "rms_norm_eps"):
            if type(raw[name]) is int:
                raw[name] = float(raw[name])
        return cls(**{**raw, "full_attention_layers": tuple(full)}).validate()


# EmbeddingGemma-300M (arXiv 2509.20354), for benchmarks on synthetic weights.
EMBEDDINGGEMMA_300M = EncoderConfig(
    layers=24,
    hidden=768,
    ffn=1152,
    heads=3,
    kv_heads=1,
    head_dim=256,
    vocab=262144,
    max_tokens=2048,
    window=256,
    full_attention_layers=(5, 11, 17, 23),
    rope_theta_sliding=10_000.0,
    rope_theta_full=1_000_000.0,
    rms_norm_eps=1e-6,
    bos_id=2,
    eos_id=1,
)
