"""The module of this name in sentence-transformers: what is imported from it under any name is the same class."""

from embgemma.drop_in import SentenceTransformer

__all__ = ["SentenceTransformer"]
