"""The module of this name in sentence-transformers."""

from embgemma.util import quantize_embeddings

__all__ = ["quantize_embeddings"]
