"""ONNX models of the published checkpoint: the golden vectors, padding, and the same vectors by `embgemma.load`.

Skipped unless EMBGEMMA_CHECKPOINT names the checkpoint's folder and EMBGEMMA_GOLDEN the folder of golden values.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import embgemma
from embgemma.onnx.onnx_backend import session_options

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from embgemma.export.onnx.export import export_onnx  # noqa: E402

Vectors = npt.NDArray[np.float32]

# What each format must reach over the golden texts: (mean, min) cosine to float32. By plain rounding, since calibration
# takes minutes: int8 gave 0.9993 and 0.9982, int4 0.9930 and 0.9752; the README has what calibration gives.
COSINE_BOUNDS = {"int8": (0.999, 0.996), "int4": (0.99, 0.965)}
PADDED = 0.99999  # between a text alone and in a padded batch
LONGEST_PADDED = 64  # tokens of the texts in that batch: enough of them, and quick

FORMATS = ("int8", "int4")


@pytest.fixture(scope="module", params=FORMATS)
def model(request: pytest.FixtureRequest, checkpoint: Path, golden: Path) -> Iterator[tuple[str, Path]]:  # noqa: ARG001
    with tempfile.TemporaryDirectory() as folder:  # pytest's own would keep files of 300 MB
        yield request.param, export_onnx(checkpoint, Path(folder) / "a.onnx", request.param, calibrated=False).model


@pytest.fixture(scope="module")
def ids(golden: Path) -> list[list[int]]:
    return [row["ids"] for row in json.loads((golden / "texts.json").read_text("utf-8"))["rows"]]


def run(session: Any, texts: list[list[int]]) -> Vectors:
    longest = max(map(len, texts))
    ids = np.array([text + [0] * (longest - len(text)) for text in texts])
    mask = np.array([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    vectors: Vectors = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]
    return vectors


def test_golden_texts(model: tuple[str, Path], golden: Path, ids: list[list[int]]) -> None:
    weights_format, path = model
    session = onnxruntime.InferenceSession(path, session_options())
    alone = np.concatenate([run(session, [text]) for text in ids])
    cosines = np.sum(alone.astype(np.float64) * np.load(golden / "fp32.npz")["embeddings"], axis=1)
    print(f"{weights_format}, {len(ids)} texts: cosine mean {cosines.mean():.6f}, min {cosines.min():.6f}")
    assert cosines.mean() >= COSINE_BOUNDS[weights_format][0]
    assert cosines.min() >= COSINE_BOUNDS[weights_format][1]
    some = [i for i, text in enumerate(ids) if len(text) <= LONGEST_PADDED]
    padded = np.sum(alone[some] * run(session, [ids[i] for i in some]), axis=1)
    print(f"{weights_format}, {len(some)} texts in one batch: cosine to those alone at least {padded.min():.7f}")
    assert padded.min() >= PADDED
    with embgemma.load(path) as loaded:
        for i in some[:8]:
            np.testing.assert_allclose(loaded.encode_ids([ids[i]])[0], alone[i], atol=1e-5)
