"""Parts of the published vocabulary: the golden texts, covered, keep their ids and the bits of their vectors.

Skipped unless EMBGEMMA_CHECKPOINT names the checkpoint's folder and EMBGEMMA_GOLDEN the folder of golden values.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import embgemma
from embgemma.export.restrict_file import restrict
from embgemma.export.vocabulary.keep import Keep
from embgemma.kernels.model_file import Scheme

LONGEST = 200  # characters of the texts that are embedded: quick, and in many languages


@pytest.mark.parametrize("pieces", [None, 40_000])
def test_golden_texts_keep_their_vectors(
    converted: Callable[[Scheme], Path], golden: Path, tmp_path: Path, pieces: int | None
) -> None:
    rows = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows), "utf-8")
    part = tmp_path / "part.safetensors"
    kept = restrict(converted("int8"), part, Keep((tmp_path / "texts.jsonl",), pieces=pieces))
    assert kept.coverage.covered == kept.coverage.tokens > 5000
    assert part.stat().st_size < converted("int8").stat().st_size - 768 * (kept.of - len(kept.rows))
    short = [row for row in rows if len(row["text"]) < LONGEST]
    assert len(short) > 10
    with embgemma.load(converted("int8")) as whole, embgemma.load(part) as small:
        for row in short:
            ids = small.token_ids(row["text"], prompt_name=row["prompt"])
            assert [kept.rows[i] for i in ids] == row["ids"]
            vectors = [model.encode(row["text"], prompt_name=row["prompt"]) for model in (whole, small)]
            np.testing.assert_array_equal(*vectors)
