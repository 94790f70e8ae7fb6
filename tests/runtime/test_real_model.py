"""The published checkpoint, end to end: what sentence-transformers gives in float32, and the same bits in any batch.

Skipped unless EMBGEMMA_CHECKPOINT names the checkpoint's folder and EMBGEMMA_GOLDEN the folder of golden values.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import embgemma
from embgemma.kernels import Backend, create_backend
from embgemma.kernels.backend import BACKENDS
from embgemma.kernels.model_file import SCHEMES, read_model_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from embgemma.kernels.model_file import Scheme

# Least (mean, min) cosine to float32 over the golden texts. The bounds of int4, which is rounded without calibration,
# only separate rounding errors from a wrong tensor.
COSINE_BOUNDS = {
    "float32": (0.99999, 0.99999),
    "int8": (0.999, 0.99),
    "balanced": (0.99, 0.95),
    "mixed": (0.95, 0.8),
    "int4": (0.93, 0.75),
}

# Limits of the golden texts that a backend encodes repeatedly: tokens of a text, and texts.
AFFORDABLE = {"native": (700, 64), "numba": (300, 16), "reference": (20, 2)}

# Least cosine between backends. In float32 they differ in the order of sums. With int8 activations, one value that is
# rounded the other way spreads through the layers until its effect is as large as that of rounding: 0.9974 was seen,
# also between two runs of one backend on inputs that differ by a millionth.
AGREEMENT = {"float32": 0.999999, "int8": 0.99}


@dataclass(frozen=True)
class Golden:
    """Texts, and what sentence-transformers makes of them."""

    texts: list[str]
    prompt_names: list[str | None]
    ids: list[list[int]]
    embeddings: Any  # (texts, 768) float32, of length 1

    def affordable(self, backend: str) -> list[int]:
        """Numbers of the texts that the backend can encode in the time of a test, short and long mixed."""
        longest, count = AFFORDABLE[backend]
        return [i for i, ids in enumerate(self.ids) if len(ids) <= longest][:count]


@pytest.fixture(scope="module")
def values(golden: Path) -> Golden:
    rows = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    return Golden(
        texts=[row["text"] for row in rows],
        prompt_names=[row["prompt"] for row in rows],
        ids=[row["ids"] for row in rows],
        embeddings=np.load(golden / "fp32.npz")["embeddings"],
    )


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    if request.param not in embgemma.available_backends():
        pytest.skip(f"backend {request.param} is not available here")
    return str(request.param)


def encode_in_one_call(engine: Backend, texts: list[list[int]]) -> Any:
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return engine.encode(np.concatenate(texts).astype(np.int32), offsets, 768, True)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_cosine_to_float32(converted: Callable[[Scheme], Path], values: Golden, scheme: Scheme) -> None:
    fastest = embgemma.available_backends()[0]
    numbers = list(range(len(values.ids))) if fastest == "native" else values.affordable(fastest)
    with embgemma.load(converted(scheme), backend=fastest) as model:
        embeddings = model.encode_ids([values.ids[i] for i in numbers])
    cosines = np.sum(embeddings.astype(np.float64) * values.embeddings[numbers], axis=1)
    mean, worst = float(cosines.mean()), float(cosines.min())
    print(f"{scheme} on {fastest}, {len(numbers)} texts: cosine mean {mean:.6f}, min {worst:.6f}")
    assert mean >= COSINE_BOUNDS[scheme][0]
    assert worst >= COSINE_BOUNDS[scheme][1]


@pytest.mark.parametrize("backend", ["native", "numba"], indirect=True)
@pytest.mark.parametrize("scheme", AGREEMENT)
def test_backends_agree_with_the_reference(
    converted: Callable[[Scheme], Path], values: Golden, backend: str, scheme: Scheme
) -> None:
    ids = [values.ids[i] for i in values.affordable("reference")]
    with embgemma.load(converted(scheme), backend="reference") as reference:
        expected = reference.encode_ids(ids)
    with embgemma.load(converted(scheme), backend=backend) as model:
        given = model.encode_ids(ids)
    assert np.sum(expected * given, axis=1).min() > AGREEMENT[scheme]


@pytest.mark.filterwarnings("ignore::embgemma.TruncationWarning")
def test_ids_are_those_of_the_hugging_face_tokenizer(converted: Callable[[Scheme], Path], values: Golden) -> None:
    with embgemma.load(converted("mixed"), backend=embgemma.available_backends()[-1]) as model:
        for text, prompt_name, ids in zip(values.texts, values.prompt_names, values.ids, strict=True):
            assert model.token_ids(text, prompt_name=prompt_name) == ids


@pytest.mark.parametrize("scheme", ["float32", "int8", "mixed"])
def test_bits_do_not_depend_on_batch_order_or_threads(
    converted: Callable[[Scheme], Path], values: Golden, backend: str, scheme: Scheme
) -> None:
    ids = [values.ids[i] for i in values.affordable(backend)]
    if backend == "native":
        ids = (ids + [text[:5] for text in ids])[:64]  # a batch of 64 of mixed lengths
    order = np.random.default_rng(0).permutation(len(ids))
    file = read_model_file(converted(scheme))
    for threads in (2, 1):
        engine = create_backend(file, backend=backend, threads=threads)
        together = encode_in_one_call(engine, ids)
        if threads == 2:
            alone = np.concatenate([encode_in_one_call(engine, [text]) for text in ids])
            assert np.array_equal(encode_in_one_call(engine, [ids[i] for i in order]), alone[order])
        assert np.array_equal(together, alone)


def test_shortened_embeddings_keep_their_meaning(converted: Callable[[Scheme], Path], values: Golden) -> None:
    fastest = embgemma.available_backends()[0]
    numbers = values.affordable("numba")
    ids = [values.ids[i] for i in numbers]
    with embgemma.load(converted("int8"), backend=fastest) as model:
        for dim in (512, 256, 128):
            expected = values.embeddings[numbers, :dim]
            cosines = np.diag(model.similarity(model.encode_ids(ids, truncate_dim=dim), expected))
            assert cosines.mean() >= COSINE_BOUNDS["int8"][0]
