"""What the model does for an index: it counts tokens, cuts texts into passages, and embeds these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..inputs import check_integer
from ..kernels.errors import InputError
from .database import Settings
from .passages import passages, words
from .vectors import to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..model import EmbeddingModel
    from .passages import Chunk, Passage

DEFAULT_DIM, DEFAULT_PASSAGE, DEFAULT_OVERLAP = 256, 128, 32
LEAST_PASSAGE = 8  # tokens

NO_TITLE = "title: none"  # in the prompt of EmbeddingGemma for documents; a title takes the place of "none"


class Embedder:
    """The model of an index, used as its settings say."""

    def __init__(self, model: EmbeddingModel, settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._prefixes: dict[str, str] = {}  # of the last title

    def passages(self, chunks: Iterable[Chunk]) -> Iterator[Passage]:
        """The passages of a text."""
        settings = self._settings
        return passages(chunks, self._model.tokenizer.count, settings.passage_tokens, settings.overlap)

    def text_of(self, passage: Passage) -> str:
        """What is embedded of a passage: the prompt with its title, if that fits, and its words."""
        title = words(passage.title)
        prefix = self._prefixes.get(title)
        if prefix is None:
            prefix = prompt = self._settings.prompt
            if title and NO_TITLE in prompt:
                prefix = prompt.replace(NO_TITLE, f"title: {title}", 1)
                if _tokens_around(self._model, prefix) + self._settings.passage_tokens > self._model.max_seq_length:
                    prefix = prompt
            self._prefixes = {title: prefix}  # replaced as a whole: other threads read it
        return prefix + words(passage.text)

    def embed(self, texts: list[str]) -> list[bytes]:
        """Such texts as vectors, as they are stored."""
        vectors = self._model.encode(
            texts, prompt="", truncate_dim=self._settings.dim, normalize_embeddings=True, show_progress_bar=False
        )
        return to_bytes(vectors, self._settings.precision)

    def embed_query(self, query: str) -> Any:
        """A query as a unit vector (dim,) float32."""
        return self._model.encode_query(
            query, truncate_dim=self._settings.dim, normalize_embeddings=True, show_progress_bar=False
        )


def new_settings(
    model: EmbeddingModel,
    name: str | None,
    dim: int | None,
    precision: str,
    passage_tokens: int | None,
    overlap: int | None,
) -> Settings:
    """The settings of a new index; raises InputError for what the model cannot do. None stands for a default.

    name: of the model, in place of its path.
    """
    from .. import __version__

    full = model.get_embedding_dimension()
    dim = min(DEFAULT_DIM, full) if dim is None else check_integer("dim", dim, 1, full)
    prompt = model.prompts.get("document", "")
    if passage_tokens is None:
        passage_tokens = min(DEFAULT_PASSAGE, _room(model, prompt))
    if overlap is None:
        overlap = min(DEFAULT_OVERLAP, passage_tokens // 4) if isinstance(passage_tokens, int) else 0
    check_lengths(model, prompt, passage_tokens, overlap)
    return Settings(
        model=name or str(model.path.absolute()),
        fingerprint=model.fingerprint(prompt=prompt, truncate_dim=dim),
        prompt=prompt,
        dim=dim,
        precision=precision,
        passage_tokens=passage_tokens,
        overlap=overlap,
        version=__version__,
    )


def check_lengths(model: EmbeddingModel, prompt: str, passage_tokens: int, overlap: int) -> None:
    """Raises InputError unless a model can embed such passages."""
    check_integer("passage_tokens", passage_tokens, LEAST_PASSAGE, _room(model, prompt))
    check_integer("overlap", overlap, 0, passage_tokens // 2)


def _room(model: EmbeddingModel, prompt: str) -> int:
    """Most tokens of a passage."""
    room = model.max_seq_length - _tokens_around(model, prompt)
    if room < LEAST_PASSAGE:
        raise InputError(f"{model.path}: it takes {model.max_seq_length} tokens at most, too few for passages")
    return room


def _tokens_around(model: EmbeddingModel, prompt: str) -> int:
    """Tokens of a text besides its passage: of the prompt, and `<bos>` and `<eos>`."""
    (tokens,) = model.tokenizer.count([prompt])
    return tokens + 2
