"""The engine: what turns token ids into vectors, in C, in Numba and in NumPy.

config.py, layout.py   shapes and constants of a model; names and layouts of its tensors
batch.py               what is encoded: packed token ids
backend.py             what a backend is, and which one runs
native.py              the C engine (embgemma.h, encoder.c, matmul_<isa>.c)
numba_backend.py       the same operations compiled by Numba, where there is no C compiler
reference.py           the same operations in NumPy, float64: the oracle
"""

from .backend import Backend, available_backends, create_backend

__all__ = ["Backend", "available_backends", "create_backend"]
