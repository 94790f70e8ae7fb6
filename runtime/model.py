"""The model that users hold: texts in, embeddings out. Names, defaults and shapes follow sentence-transformers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from . import similarity as _similarity
from .batches import batches, open_tokenizer
from .find import find_model_file
from .inputs import check_integer, check_texts, check_unicode, join_token_ids
from .kernels.batch import check_batch
from .kernels.errors import EmbgemmaError, InputError, ModelFileError, VectorError
from .notices import TruncationWarning, progress_bar, warn
from .source import Source, check_same, file_state, fingerprint

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    import numpy.typing as npt

    from .batches import Tokenized
    from .inputs import TokenIds
    from .kernels.backend import Backend
    from .kernels.config import EncoderConfig
    from .kernels.model_file import ModelFile
    from .kernels.native_tokenizer import NativeTokenizer
    from .tokenizer import Tokenizer

    Embeddings: TypeAlias = npt.NDArray[np.float32]

logger = logging.getLogger("embgemma")

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the first of them that the model has

TOKENIZED_AT_ONCE = 256  # texts: enough to hide the cost of a call and to fill batches


@dataclass(frozen=True)
class _Options:
    """Checked arguments of `EmbeddingModel.encode`: how to compute."""

    batch_size: int
    show_progress: bool
    normalize: bool
    dim: int  # of the embeddings returned


def load(
    path: str | os.PathLike[str], *, backend: str = "auto", threads: int | None = None, isa: str | None = None
) -> EmbeddingModel:
    """Opens a model file, made by `embgemma convert`.

    Args:
        path: the model file, or an ONNX model (*.onnx) or a bundle made by `embgemma export-onnx`. It is mapped into
            memory and read as needed, so it must stay as it is while the model is open; a rename may replace it.
        backend: "auto" or one of `embgemma.available_backends()`; for an ONNX model "onnx" (ONNX Runtime).
        threads: number of threads; None for the number of physical cores, or the CPU quota if less.
        isa: instruction set of the native backend, such as "avx2"; None for the best of this CPU.

    Raises:
        ModelFileError: the file is no model file, is damaged, or has a version that this release does not read.
        BackendError: the backend or the instruction set is unknown or missing here.
        InputError: `threads` is not a positive integer.
    """
    source = Source(find_model_file(Path(path)), backend, threads, isa)
    return EmbeddingModel(*source.open(), source)


class EmbeddingModel:
    """An embedding model that is ready to run; `embgemma.load` makes one.

    Several threads may call it at once. `close`, or the end of a `with` block, frees its memory. A model that is
    pickled or copied keeps the path of its file and its settings: the other side opens that file again, which must be
    the same.
    """

    def __init__(self, model_file: ModelFile, backend: Backend, source: Source | None = None) -> None:
        source = source or Source(model_file.path, backend.name, backend.threads)
        self._source = replace(source, path=source.path.absolute())
        self._file_state = file_state(source.path)
        self.path: Path = model_file.path
        self.config: EncoderConfig = model_file.config
        self.scheme = model_file.scheme
        self.prompts = dict(model_file.prompts)
        self.default_prompt_name = model_file.default_prompt_name
        self.similarity_fn_name = model_file.similarity_fn_name
        self._embedding_dim = model_file.embedding_dim or model_file.config.hidden
        self._open_backend: Backend | None = backend
        self._tokenizer = open_tokenizer(model_file)
        self._max_seq_length = model_file.config.max_tokens

    # ---- texts to embeddings ----

    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
    ) -> Embeddings:
        """Embeds one text or many.

        Args:
            sentences: a text, or a list or other iterable of texts.
            prompt_name: which of `prompts` to put before every text; None for the model's default, which is often none.
            prompt: the prompt itself; it overrides prompt_name.
            batch_size: most texts computed at once. It never changes a result, not even the last bit. A batch never
                has more than `config.max_tokens` tokens.
            show_progress_bar: None shows a bar if the level of the logger "embgemma" is INFO or DEBUG.
            normalize_embeddings: True gives vectors of length 1, also if shortened. False gives the first values of
                the full vector of length 1, as sentence-transformers does by default.
            truncate_dim: size of the embeddings; EmbeddingGemma was trained for 768, 512, 256 and 128. None for the
                full size.

        Returns:
            float32 (dim,) for one text, (texts, dim) for several, in their order.

        Raises:
            InputError: a text is not a string or not valid Unicode, the prompt is unknown, or a size is out of range.
            ModelFileError: the file is damaged, so that a text has no vector: it comes out as zero or not finite.

        Warns:
            TruncationWarning: texts had more than `max_seq_length` tokens, prompt included, and were cut.
        """
        options = self._options(batch_size, show_progress_bar, normalize_embeddings, truncate_dim)
        return self._encode(sentences, self._prompt(prompt_name, prompt, ()), options)

    def encode_query(
        self,
        sentences: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
    ) -> Embeddings:
        """Embeds what a user searches with: `encode` with the prompt "query", unless another is given."""
        options = self._options(batch_size, show_progress_bar, normalize_embeddings, truncate_dim)
        return self._encode(sentences, self._prompt(prompt_name, prompt, QUERY_PROMPTS), options)

    def encode_document(
        self,
        sentences: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
    ) -> Embeddings:
        """Embeds what a user searches in: `encode` with the prompt "document", unless another is given."""
        options = self._options(batch_size, show_progress_bar, normalize_embeddings, truncate_dim)
        return self._encode(sentences, self._prompt(prompt_name, prompt, DOCUMENT_PROMPTS), options)

    def encode_ids(
        self, ids: Sequence[TokenIds], *, truncate_dim: int | None = None, normalize_embeddings: bool = True
    ) -> Embeddings:
        """Embeds token ids, which include `<bos>` and `<eos>`; returns float32 (texts, dim).

        Raises InputError if a text is empty or longer than `config.max_tokens`, or an id is out of range.
        """
        flat, offsets = join_token_ids(ids)
        options = self._options(max(1, len(ids)), False, normalize_embeddings, truncate_dim)
        return self._embed([check_batch(self.config, flat, offsets, options.dim)], len(ids), options)

    @overload
    def tokenize(  # type: ignore[overload-overlap]  # a str is an iterable of str too; the first match wins
        self, sentences: str, *, prompt_name: str | None = ..., prompt: str | None = ...
    ) -> list[int]: ...

    @overload
    def tokenize(
        self, sentences: Iterable[str], *, prompt_name: str | None = ..., prompt: str | None = ...
    ) -> list[list[int]]: ...

    def tokenize(
        self, sentences: str | Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> list[int] | list[list[int]]:
        """Token ids of one text or several, as `encode` uses them: with prompt, `<bos>` and `<eos>`."""
        prefix = self._prompt(prompt_name, prompt, ())
        tokenizer = self._text_tokenizer()
        texts = [prefix + text for text in check_texts(sentences)]
        ids = tokenizer.encode_batch(texts, self._max_seq_length).split()
        return ids[0] if isinstance(sentences, str) else ids

    def similarity(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Embeddings:
        """Scores (n, m) of all embeddings1 (n, dim) with all embeddings2 (m, dim), by `similarity_fn_name`."""
        return _similarity.similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Embeddings:
        """Scores (n,) of each of embeddings1 (n, dim) with its pair in embeddings2 (n, dim)."""
        return _similarity.similarity_pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    # ---- what it is and what it runs on ----

    @property
    def backend(self) -> str:
        """What computes: "native" (the C engine), "numba" or "reference" (slow)."""
        return self._backend().name

    @property
    def isa(self) -> str:
        """The instruction set in use."""
        return self._backend().isa

    @property
    def threads(self) -> int:
        """The number of threads in use."""
        return self._backend().threads

    @property
    def max_seq_length(self) -> int:
        """Most tokens of a text, prompt, `<bos>` and `<eos>` included; longer texts are cut. It may be lowered."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        self._max_seq_length = check_integer("max_seq_length", tokens, 2, self.config.max_tokens)

    def get_embedding_dimension(self) -> int:
        """Size of a full embedding."""
        return self._embedding_dim

    def get_sentence_embedding_dimension(self) -> int:
        """Size of a full embedding; sentence-transformers used this name before version 6."""
        return self._embedding_dim

    def close(self) -> None:
        """Frees weights, scratch memory and threads. Running calls finish; later calls raise EmbgemmaError."""
        self._open_backend = None
        self._tokenizer = None

    def __enter__(self) -> EmbeddingModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        self._backend()
        path = self._source.path
        if file_state(path) != self._file_state:
            raise ModelFileError(f"{path}: the file has changed since it was loaded; load it again to pickle the model")
        kept = {name: value for name, value in vars(self).items() if name not in ("_open_backend", "_tokenizer")}
        return {**kept, "fingerprint": fingerprint(path)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        source = state["_source"]
        check_same(source.path, state.pop("fingerprint"))
        model_file, backend = source.open()
        vars(self).update(state, path=source.path, _file_state=file_state(source.path))
        self._open_backend, self._tokenizer = backend, open_tokenizer(model_file)

    def __repr__(self) -> str:
        engine = self._open_backend
        running = f"{engine.name} ({engine.isa}), threads={engine.threads}" if engine else "closed"
        return f"<EmbeddingModel {self.path.name!r} scheme={self.scheme} backend={running}>"

    # ---- inside ----

    def _options(
        self, batch_size: int, show_progress_bar: bool | None, normalize: bool, truncate_dim: int | None
    ) -> _Options:
        """Checks the arguments of `encode` other than texts and prompts."""
        full = self._embedding_dim
        dim = full if truncate_dim is None else check_integer("truncate_dim", truncate_dim, 1, full)
        if show_progress_bar is None:
            show_progress_bar = logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG)
        return _Options(check_integer("batch_size", batch_size, 1, None), show_progress_bar, normalize, dim)

    def _encode(self, sentences: str | Iterable[str], prompt: str, options: _Options) -> Embeddings:
        tokenizer = self._text_tokenizer()
        texts = check_texts(sentences)
        limit = self._max_seq_length
        truncated: list[int] = []

        def tokenize() -> Iterator[Tokenized]:
            at_once = options.batch_size * max(1, TOKENIZED_AT_ONCE // options.batch_size)
            for start in range(0, len(texts), at_once):
                part = [prompt + text for text in texts[start : start + at_once]]
                tokenized = tokenizer.encode_batch(part, limit)
                truncated.extend((start + np.flatnonzero(tokenized.truncated)).tolist())
                yield tokenized.ids, tokenized.offsets

        embeddings = self._embed(tokenize(), len(texts), options)
        if truncated:
            message = (
                f"{len(truncated)} of {len(texts)} texts have more than {limit} tokens, the first of them text "
                f"{truncated[0]}; the rest was cut off: split long texts into parts"
            )
            warn(TruncationWarning(message, truncated))
        return embeddings[0] if isinstance(sentences, str) else embeddings

    def _embed(self, tokenized: Iterable[Tokenized], count: int, options: _Options) -> Embeddings:
        """Embeddings (count, dim) of all texts, computed in batches to bound the scratch memory."""
        backend = self._backend()
        # A unit vector of `dim` values needs only the first `dim` rows of the head.
        computed_dim = options.dim if options.normalize else self._embedding_dim
        embeddings = np.empty((count, options.dim), np.float32)
        done = 0
        with progress_bar(count, "text", shown=options.show_progress) as advance:
            for ids, offsets in batches(tokenized, options.batch_size, self.config.max_tokens):
                try:
                    vectors = backend.encode(ids, offsets, computed_dim, True)
                except VectorError as error:
                    raise VectorError(done + error.text, self.path) from error
                embeddings[done : done + len(vectors)] = vectors[:, : options.dim]
                done += len(vectors)
                advance(len(vectors))
        return embeddings

    def _backend(self) -> Backend:
        if self._open_backend is None:
            raise EmbgemmaError("the model is closed; load it again")
        return self._open_backend

    def _text_tokenizer(self) -> Tokenizer | NativeTokenizer:
        self._backend()  # a closed model has no tokenizer either
        if self._tokenizer is None:
            raise ModelFileError(
                f"{self.path}: the file has no tokenizer that runs here, so it takes token ids only (encode_ids); "
                "an int4 file has one for the C engine alone: install a C compiler, then embgemma once more, or "
                "convert into another scheme"
            )
        return self._tokenizer

    def _prompt(self, name: str | None, prompt: str | None, fallbacks: Sequence[str]) -> str:
        """The prompt as given, else by name, else the first fallback that the model has, else its default."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InputError(f"prompt is of type {type(prompt).__name__}; expected str")
            if name is not None:
                warn(f"both prompt and prompt_name are given; prompt_name={name!r} is ignored")
            check_unicode("prompt", prompt)
            return prompt
        if name is None:
            name = next((fallback for fallback in fallbacks if fallback in self.prompts), self.default_prompt_name)
        if name is None:
            return ""
        if name not in self.prompts:
            raise InputError(f"prompt_name={name!r} is not a prompt of this model; it has {', '.join(self.prompts)}")
        return self.prompts[name]
