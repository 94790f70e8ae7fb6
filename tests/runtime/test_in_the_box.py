"""The model in the box: small, real, and found without a name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import embgemma

PAIRS = {
    "a doctor for animals": "The vet looks after sick dogs and cats.",
    "how to prepare bread": "Knead the dough and bake it for forty minutes.",
    "a place to buy food": "The supermarket sells fruit and vegetables.",
    "celestial bodies around a star": "Planets orbit the sun.",
    "money that is owed": "She has to pay back her debt to the bank.",
    "rain and wind": "A storm is coming.",
}


@pytest.fixture(scope="module")
def model() -> embgemma.EmbeddingModel:
    return embgemma.load()


def test_what_means_the_same_is_nearest(model: embgemma.EmbeddingModel) -> None:
    queries, documents = model.encode_query(list(PAIRS)), model.encode_document(list(PAIRS.values()))
    assert np.asarray(model.similarity(queries, documents)).argmax(axis=1).tolist() == list(range(len(PAIRS)))
    short = [vectors[:, :128] for vectors in (queries, documents)]
    assert np.asarray(model.similarity(*short)).argmax(axis=1).tolist() == list(range(len(PAIRS)))


def test_size(model: embgemma.EmbeddingModel) -> None:
    assert model.path.stat().st_size <= 8e6
    assert (model.config.max_tokens, model.get_embedding_dimension()) == (512, 256)


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_backends_agree(model: embgemma.EmbeddingModel, backend: str) -> None:
    if backend not in embgemma.available_backends():
        pytest.skip(f"{backend} does not run here")
    texts = list(PAIRS)
    other = embgemma.load(backend=backend, threads=1)
    assert other.fingerprint() == model.fingerprint()
    assert (model.encode(texts) * other.encode(texts)).sum(axis=1) == pytest.approx(1, abs=2e-3)


def test_its_card_states_its_size(model: embgemma.EmbeddingModel) -> None:
    card = (Path(__file__).parents[2] / "runtime/models/README.md").read_text("utf-8")
    assert f"{model.path.stat().st_size / 1e6:.1f} MB" in card
