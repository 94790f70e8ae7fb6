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
        if title not in self._prefixes:
            prefix = prompt = self._settings.prompt
            if title and NO_TITLE in prompt:
                prefix = prompt.replace(NO_TITLE, f"title: {title}", 1)
                if _tokens_around(self._model, prefix) + self._settings.passage_tokens > self._model.max_seq_length:
                    prefix = prompt
            self._prefixes = {title: prefix}
        return self._prefixes[title] + words(passage.text)

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
    room = model.max_seq_length - _tokens_around(model, prompt)
    if room < LEAST_PASSAGE:
        raise InputError(f"{model.path}: it takes {model.max_seq_length} tokens at most, too few for passages")
    passage_tokens = min(DEFAULT_PASSAGE, room) if passage_tokens is None else passage_tokens
    check_integer("passage_tokens", passage_tokens, LEAST_PASSAGE, room)
    overlap = min(DEFAULT_OVERLAP, passage_tokens // 4) if overlap is None else overlap
    return Settings(
        model=name or str(model.path.absolute()),
        fingerprint=model.fingerprint(prompt=prompt, truncate_dim=dim),
        prompt=prompt,
        dim=dim,
        precision=precision,
        passage_tokens=passage_tokens,
        overlap=check_integer("overlap", overlap, 0, passage_tokens // 2),
        version=__version__,
    )


def _tokens_around(model: EmbeddingModel, prompt: str) -> int:
    """Tokens of a text besides its passage: of the prompt, and `<bos>` and `<eos>`."""
    (tokens,) = model.tokenizer.count([prompt])
    return tokens + 2
