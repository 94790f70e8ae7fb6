"""Weights rounded to few bits, so that a model's outputs change as little as possible."""
