"""A search with the model in the box, which shows what embeddings are for before anything is measured."""

from __future__ import annotations

from ...find import IN_THE_BOX
from ...model import load

QUERY = "celestial bodies around a star"
TEXTS = (
    "The vet looks after sick dogs and cats.",
    "Knead the dough and bake it for forty minutes.",
    "Planets orbit the sun.",
    "The actress signs photos for her fans.",
    "She has to pay back her debt to the bank.",
    "The engine does not start.",
)


def first_search() -> str:
    """A query and the text that it finds, in one line."""
    model = load(threads=1)
    scores = model.similarity(model.encode_query(QUERY), model.encode_document(list(TEXTS)))[0]
    best = int(scores.argmax())
    return f'"{QUERY}" finds "{TEXTS[best]}" among {len(TEXTS)} texts, by {IN_THE_BOX}, the model in the box'
