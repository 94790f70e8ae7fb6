"""Batches of token ids through a backend, to embeddings or to the states of tokens."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .kernels.errors import VectorError
from .notices import progress_bar
from .outputs import features

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt

    from .arguments import Options
    from .batches import Tokenized
    from .kernels.backend import Backend


@contextmanager
def texts_from(first: int, path: Path) -> Iterator[None]:
    """Lets an error count texts from the first of the call, not of the batch, and name the model file."""
    try:
        yield
    except VectorError as error:
        raise VectorError(first + error.text, path) from error


def embed(
    backend: Backend, batches: Iterable[Tokenized], count: int, options: Options, *, full_dim: int, path: Path
) -> npt.NDArray[np.float32]:
    """Embeddings (count, dim) of all texts; raises VectorError naming the text and the path of the model file."""
    # A unit vector of `dim` values needs only the first `dim` rows of the head.
    computed_dim = options.dim if options.normalize else full_dim
    embeddings = np.empty((count, options.dim), np.float32)
    done = 0
    with progress_bar(count, shown=options.show_progress) as advance:
        for ids, offsets in batches:
            with texts_from(done, path):
                vectors = backend.encode(ids, offsets, computed_dim, True)
            embeddings[done : done + len(vectors)] = vectors[:, : options.dim]
            done += len(vectors)
            advance(len(vectors))
    return embeddings


def give_states(
    backend: Backend,
    batches: Iterable[Tokenized],
    count: int,
    options: Options,
    facts: dict[str, Any] | None,
    *,
    full_dim: int,
    path: Path,
) -> list[Any]:
    """For each text the states of its tokens (tokens, hidden), or with facts a dict of all that there is.

    Raises what `embed` raises.
    """
    rows: list[Any] = []
    with progress_bar(count, shown=options.show_progress) as advance:
        for ids, offsets in batches:
            with texts_from(len(rows), path):
                found: list[Any] = np.split(backend.encode_tokens(ids, offsets), offsets[1:-1])
                if facts is not None:
                    vectors = backend.encode(ids, offsets, full_dim, True)[:, : options.dim]
                    texts = np.split(ids.astype(np.int64), offsets[1:-1])
                    found = [features(*row, facts) for row in zip(texts, found, vectors, strict=True)]
            rows += found
            advance(len(found))
    return rows
