"""Writes a small model file of random weights and prints the similarity of two texts, as kernels/example.c does.

small_model.py MODEL_FILE TEXT TEXT
"""

from __future__ import annotations

import sys
from pathlib import Path

import embgemma
from embgemma.export.synthetic import write_synthetic_model
from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests import tiny

path, *texts = sys.argv[1:]
tokenizer = tiny.tokenizer_model()
table = build_tokenizer_table(tokenizer).tobytes()
write_synthetic_model(path, tiny.CONFIG, "mixed", tokenizer_model=tokenizer, tokenizer_table=table)
first, second = embgemma.load(path).encode(texts).astype(float)
print(f"{first @ second:.4f}")
