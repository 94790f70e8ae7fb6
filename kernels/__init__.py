"""The engine: turns token ids into vectors, in C, in Numba and in NumPy.

model_file.py          opens a model file and checks it
config.py, layout.py   shapes and constants of a model; names and layouts of its tensors
embedding_rows.py      how rows of the embedding table are stored
batch.py               what is encoded: token ids, end to end
backend.py             what a backend is, and which one runs
native.py              the C engine (embgemma.h, engine/encoder.c, isa/matmul_<isa>.c)
native_tokenizer.py    its tokenizer
numba_engine/          the same operations compiled by Numba, where there is no C compiler
reference.py           the same operations in NumPy, float64: the oracle
"""

from .backend import Backend, available_backends, create_backend

__all__ = ["Backend", "available_backends", "create_backend"]
