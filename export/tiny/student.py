"""The architecture of EmbeddingGemma in PyTorch, for training embgemma-tiny; names of parameters as in checkpoints.

kernels/reference.py is the same forward pass with sources; this one differs in that texts of a batch are padded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCAB, LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM = 16_384, 6, 256, 768, 4, 1, 64
MAX_TOKENS, WINDOW, EPS = 512, 512, 1e-6  # WINDOW: a token of a sliding layer sees those less than half of it away
FULL_ATTENTION = (5,)  # layers
ROPE_THETA = {"sliding_attention": 10_000.0, "full_attention": 1_000_000.0}


class Norm(nn.Module):
    """RMSNorm times 1 + weight."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """Of the last dimension."""
        return functional.rms_norm(x, x.shape[-1:], 1 + self.weight, EPS)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A matrix that keeps the size of values, about."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


class Attention(nn.Module):
    """Every token looks at all tokens that it sees; the query heads share one head of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.o_proj = linear(HIDDEN, HEADS * HEAD_DIM), linear(HEADS * HEAD_DIM, HIDDEN)
        self.k_proj, self.v_proj = linear(HIDDEN, KV_HEADS * HEAD_DIM), linear(HIDDEN, KV_HEADS * HEAD_DIM)
        self.q_norm, self.k_norm = Norm(HEAD_DIM), Norm(HEAD_DIM)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """x (texts, tokens, HIDDEN); seen (texts, 1, tokens, tokens)."""

        def heads(projection: nn.Linear) -> Tensor:
            return projection(x).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)

        def turn(y: Tensor) -> Tensor:
            low, high = y.chunk(2, dim=-1)
            return y * rope[0] + torch.cat([-high, low], dim=-1) * rope[1]

        queries, keys, values = (
            turn(self.q_norm(heads(self.q_proj))),
            turn(self.k_norm(heads(self.k_proj))),
            heads(self.v_proj),
        )
        shape = queries.shape
        mixed = functional.scaled_dot_product_attention(queries, keys.expand(shape), values.expand(shape), seen)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """GeGLU: arXiv 2002.05202."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(HIDDEN, FFN), linear(HIDDEN, FFN), linear(FFN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        """(texts, tokens, HIDDEN)."""
        return self.down_proj(functional.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    """Attention and feed-forward, each between two norms."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(HIDDEN), Norm(HIDDEN)
        self.pre_feedforward_layernorm, self.post_feedforward_layernorm = Norm(HIDDEN), Norm(HIDDEN)
        self.self_attn, self.mlp = Attention(), Mlp()
        for norm in (self.post_attention_layernorm, self.post_feedforward_layernorm):
            nn.init.constant_(norm.weight, -0.9)  # a new layer changes little of what the embedding rows say

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """(texts, tokens, HIDDEN)."""
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rope, seen))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class Student(nn.Module):
    """Token ids (texts, tokens), padded with 0, to vectors (texts, HIDDEN), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm(HIDDEN)
        self.dense = nn.ModuleList((linear(HIDDEN, 2 * HIDDEN), linear(2 * HIDDEN, HIDDEN)))
        with torch.no_grad():  # together they begin as the identity
            nn.init.orthogonal_(self.dense[0].weight)
            self.dense[1].weight.copy_(self.dense[0].weight.T)

    def forward(self, ids: Tensor) -> Tensor:
        """The mean of the tokens' last states, through the head."""
        mask = ids != 0
        place = torch.arange(ids.shape[1])
        near = (place[:, None] - place).abs() < WINDOW // 2 + 1
        x = self.embed_tokens(ids) * HIDDEN**0.5
        ropes = {kind: rope_of(theta, ids.shape[1]) for kind, theta in ROPE_THETA.items()}
        for number, layer in enumerate(self.layers):
            kind = kind_of(number)
            seen = mask[:, None, None, :] if kind == "full_attention" else mask[:, None, None, :] & near
            x = layer(x, ropes[kind], seen)
        x = (self.norm(x) * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        for dense in self.dense:
            x = dense(x)
        return x


def kind_of(layer: int) -> str:
    """Of a layer's attention."""
    return "full_attention" if layer in FULL_ATTENTION else "sliding_attention"


def rope_of(theta: float, tokens: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (tokens, HEAD_DIM)."""
    angles = torch.arange(tokens)[:, None] * theta ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()
