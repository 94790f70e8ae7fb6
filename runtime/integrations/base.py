"""What every adapter does: it opens a model by name, and gives vectors of queries and of documents."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..find import IN_THE_BOX
from ..inputs import is_one_text
from ..kernels.errors import BackendError, InputError
from ..kernels.install import pip_install
from ..model import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


class MissingPackageError(BackendError, ImportError):
    """The package that an adapter is for is not installed."""


@contextmanager
def needs(package: str, extra: str = "") -> Iterator[None]:
    """Makes an ImportError of the block a MissingPackageError that says what to install: an extra of ours, if named."""
    try:
        yield
    except ImportError as error:
        command = pip_install(extra) if extra else f"pip install {package}"
        raise MissingPackageError(f"this needs the package {package} ({error}); run `{command}`") from error


class Embedder:
    """A model, with vectors of length 1. Several threads may use it at once, and it pickles as a model does.

    Attributes:
        embedding_model: the model.
    """

    def __init__(
        self, model: str | os.PathLike[str] = IN_THE_BOX, *, fingerprint: str | None = None, **options: Any
    ) -> None:
        """Opens the model.

        Args:
            model: a model file or a name, as for `embgemma.load`.
            fingerprint: of the vectors of documents that are stored already; see `EmbeddingModel.fingerprint`.
            options: the other arguments of `embgemma.load`, such as truncate_dim and threads.

        Raises:
            InputError: the model gives documents other vectors than the stored ones; and what `embgemma.load` raises.
        """
        self.embedding_model = load(model, **options)
        self._config = {"model": os.fspath(model), **options}
        if fingerprint not in (None, self.fingerprint):
            raise InputError(
                f"{model}: the fingerprint of its vectors is {self.fingerprint}, and that of the stored ones "
                f"{fingerprint}: another model, size or prompt made these; give that one, or embed the documents again"
            )

    @property
    def fingerprint(self) -> str:
        """Names the vectors of documents."""
        return self.embedding_model.fingerprint("document")

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return self.embedding_model.get_embedding_dimension()

    def config(self) -> dict[str, Any]:
        """The arguments that make such an embedder again, and refuse another model under the same name."""
        return {**self._config, "fingerprint": self.fingerprint}

    def documents(self, texts: Iterable[str]) -> Vectors:
        """Vectors (texts, dim) float32 of documents, in their order."""
        return self._embed(self.embedding_model.encode_document, texts)

    def queries(self, texts: Iterable[str]) -> Vectors:
        """Vectors (texts, dim) float32 of queries, in their order."""
        return self._embed(self.embedding_model.encode_query, texts)

    def document_lists(self, texts: Iterable[str]) -> list[list[float]]:
        """`documents` as lists of Python's numbers."""
        lists: list[list[float]] = self.documents(texts).tolist()
        return lists

    def query_list(self, text: str) -> list[float]:
        """The vector of one query as a list of Python's numbers."""
        (numbers,) = self.queries([text]).tolist()
        return list(numbers)

    @staticmethod
    def _embed(encode: Callable[..., Vectors], texts: Iterable[str]) -> Vectors:
        if is_one_text(texts):  # whose vector would be taken for a list of vectors
            raise InputError("texts is one text; expected a list of them")
        return encode(texts, normalize_embeddings=True, show_progress_bar=False)


def or_none(embed: Callable[[list[str]], Vectors], texts: Iterable[str | None]) -> list[Any]:
    """A vector (dim,) float32 for each text, and None for each None."""
    texts = list(texts)
    vectors = iter(embed([text for text in texts if text is not None]))
    return [None if text is None else next(vectors) for text in texts]
