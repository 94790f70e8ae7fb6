"""Writes a small model file of random weights and prints the similarity of two texts, as kernels/example.c does.

small_model.py MODEL_FILE TEXT TEXT
"""

from __future__ import annotations

import sys
from pathlib import Path

import embgemma

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests import tiny

path, *texts = sys.argv[1:]
tiny.write_model(Path(path))
first, second = embgemma.load(path).encode(texts).astype(float)
print(f"{first @ second:.4f}")
