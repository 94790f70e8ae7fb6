"""A search with the model in the box, which shows what embeddings are for before anything is measured."""

from __future__ import annotations

from ...find import IN_THE_BOX
from ...model import load

QUERY = "a doctor for animals"
TEXTS = (
    "The vet looks after sick dogs and cats.",
    "A surgeon operates on patients in the hospital.",
    "The zoo opens at nine in the morning.",
    "She studied physics at the university.",
    "Bake the bread for forty minutes.",
    "The engine of the car does not start.",
)


def first_search() -> str:
    """A query and the text that it finds, in one line."""
    model = load(threads=1)
    scores = model.similarity(model.encode_query(QUERY), model.encode_document(list(TEXTS)))[0]
    best = int(scores.argmax())
    return f'"{QUERY}" finds "{TEXTS[best]}" among {len(TEXTS)} texts, by {IN_THE_BOX}, the model in the box'
