"""The model that users hold: texts in, embeddings out. Names, defaults and shapes follow sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np

from .arguments import Options, check_devices, check_options, refuse_unknown
from .batches import batches, open_tokenizer
from .compatible import SentenceTransformerCalls, takes_sentences, with_prompt_of
from .find import IN_THE_BOX, opening
from .inputs import check_integer, check_texts, check_unicode, is_one_text, join_token_ids
from .kernels.batch import check_batch
from .kernels.errors import EmbgemmaError, InputError, ModelFileError
from .kernels.fingerprint import fingerprint
from .kernels.safetensors_file import shorten
from .notices import TruncationWarning, warn
from .outputs import deliver
from .pool import share, temporary_pool
from .running import embed, give_states
from .source import Source, check_same, file_state
from .tokens import TokenizerCalls

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    import numpy.typing as npt

    from .arguments import OutputValue, Precision
    from .batches import Tokenized
    from .inputs import TokenIds
    from .kernels.backend import Backend
    from .kernels.config import EncoderConfig
    from .kernels.model_file import ModelFile, Scheme
    from .kernels.native_tokenizer import NativeTokenizer
    from .pool import Pool
    from .tokenizer import Tokenizer

    Embeddings: TypeAlias = npt.NDArray[np.float32]

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the first of them that the model has

TOKENIZED_AT_ONCE = 256  # texts: enough to hide the cost of a call and to fill batches


def load(
    path: str | os.PathLike[str] = IN_THE_BOX,
    *,
    scheme: Scheme | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    backend: str = "auto",
    threads: int | None = None,
    isa: str | None = None,
    truncate_dim: int | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str | None = None,
    similarity_fn_name: str | None = None,
    device: Any = None,
) -> EmbeddingModel:
    """Opens a model file, made by `embgemma convert`, or a model by its name.

    Args:
        path: the model file, or an ONNX model (*.onnx) or a bundle made by `embgemma export-onnx`. It is mapped into
            memory and read as needed, so it must stay as it is while the model is open; a rename may replace it.
            If it is cut meanwhile, the operating system ends the process by SIGBUS; if it is changed, vectors may be
            wrong and calls may fail.
            Or a name on the Hugging Face hub, such as "google/embeddinggemma-300m", if there is no such file: the first
            time that checkpoint is downloaded and converted, as by `embgemma pull`; later nothing is asked of the
            network. Or "embgemma-tiny", the default: a small demonstration that comes with the package.
        scheme: of a name: "float32", "int8", "balanced", "mixed" or "int4"; None for the one that was pulled first, or
            int8.
        revision: of a name: branch, tag or commit of the checkpoint; None for the branch "main", as it was when pulled.
        local_files_only: whether a name that is not in the cache is an error instead of a download.
        backend: "auto" or one of `embgemma.available_backends()`; for an ONNX model "onnx" (ONNX Runtime).
        threads: number of threads; None for the number of physical cores, or the CPU quota if less.
        isa: instruction set of the native backend, such as "avx2"; None for the best of this CPU.
        truncate_dim: size of the embeddings where a call names none; None for the full size.
        prompts: added to those of the model, or in their place if the names are the same.
        default_prompt_name: the prompt of `encode` where a call names none.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; None for the model's own.
        device: None or "cpu".

    Raises:
        ModelFileError: the file is no model file, is damaged, or has a version that this release does not read.
        HubError, CheckpointError: the hub does not give the model of a name, or it cannot be converted.
        BackendError: the backend or the instruction set is unknown or missing here, or huggingface_hub is missing.
        InputError: an argument is out of range or unknown.
    """
    check_devices(device)
    with opening(path, scheme=scheme, revision=revision, local_files_only=local_files_only) as file:
        source = Source(file, backend, threads, isa)
        model = EmbeddingModel(*source.open(), source)
    model.configure(truncate_dim, prompts, default_prompt_name, similarity_fn_name)
    return model


class EmbeddingModel(SentenceTransformerCalls):
    """An embedding model that is ready to run; `embgemma.load` makes one.

    Its calls are those of `sentence_transformers.SentenceTransformer`. Several threads may make them at once. `close`,
    or the end of a `with` block, frees its memory. A model that is pickled or copied keeps the path of its file and its
    settings: the other side opens that file again, which must be the same.

    Attributes:
        prompts: prompt texts by name; more may be added.
        default_prompt_name: the prompt of `encode` where a call names none, or None.
        truncate_dim: size of the embeddings where a call names none, or None for the full size.
    """

    def __init__(self, model_file: ModelFile, backend: Backend, source: Source | None = None) -> None:
        source = source or Source(model_file.path, backend.name, backend.threads)
        self._source = replace(source, path=source.path.absolute())
        self._file_state = file_state(source.path)
        self.path: Path = model_file.path
        self.config: EncoderConfig = model_file.config
        self.scheme = model_file.scheme
        self._digest = model_file.digest
        self.prompts = {**dict.fromkeys((*QUERY_PROMPTS, *DOCUMENT_PROMPTS[:1]), ""), **model_file.prompts}
        self.default_prompt_name = model_file.default_prompt_name
        self.truncate_dim: int | None = None
        self._similarity_fn_name = model_file.similarity_fn_name
        self._embedding_dim = model_file.embedding_dim or model_file.config.hidden
        self._open_backend: Backend | None = backend
        self._tokenizer = open_tokenizer(model_file)
        self._max_seq_length = model_file.config.max_tokens

    def configure(
        self,
        truncate_dim: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
    ) -> None:
        """Settings of `embgemma.load`, checked; None leaves one as it is."""
        if not isinstance(prompts, Mapping | None):
            raise InputError(f"prompts is of type {type(prompts).__name__}; expected a dict of prompts by name")
        for name, prompt in (prompts or {}).items():
            self.prompts[self._prompt(None, name)] = self._prompt(None, prompt)
        if default_prompt_name is not None:
            self._prompt(default_prompt_name, None)
            self.default_prompt_name = default_prompt_name
        if truncate_dim is not None:
            self.truncate_dim = check_integer("truncate_dim", truncate_dim, 1)
        if similarity_fn_name is not None:
            self.similarity_fn_name = similarity_fn_name

    # ---- texts to embeddings ----

    @overload
    def encode(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = ...,
        prompt: str | None = ...,
        batch_size: int = ...,
        show_progress_bar: bool | None = ...,
        output_value: Literal["sentence_embedding"] = ...,
        precision: Precision = ...,
        convert_to_numpy: Literal[True] = ...,
        convert_to_tensor: Literal[False] = ...,
        device: Any = ...,
        normalize_embeddings: bool = ...,
        truncate_dim: int | None = ...,
        pool: Pool | None = ...,
        chunk_size: int | None = ...,
    ) -> npt.NDArray[Any]: ...

    @overload
    def encode(self, *args: Any, **kwargs: Any) -> Any: ...

    @takes_sentences
    def encode(
        self,
        inputs: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: OutputValue | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Pool | None = None,
        chunk_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embeds one text or many. Memory beside the texts and their embeddings does not grow with their number.

        Args:
            inputs: a text, or a list or other iterable of texts; an object {"text": "…"} is one as well. `sentences`,
                its older name, is taken too.
            prompt_name: which of `prompts` to put before every text; None for `default_prompt_name`, often none.
            prompt: the prompt itself; it overrides prompt_name.
            batch_size: most texts computed at once. It never changes a result, not even the last bit. A batch never
                has more than `config.max_tokens` tokens.
            show_progress_bar: None shows a bar if the level of the logger "embgemma" is INFO or DEBUG.
            output_value: "token_embeddings" gives a list of float32 (tokens, hidden), the states that a text's
                embedding is the mean of; None a dict for each text of all that there is.
            precision: "int8", "uint8", "binary" or "ubinary" quantise the embeddings: see `outputs.quantize`.
            convert_to_numpy: False gives a list of torch tensors.
            convert_to_tensor: True gives one torch tensor. Only this and the former import torch.
            device: None or "cpu", or a list of "cpu", one for each process to share the work.
            normalize_embeddings: whether shortened embeddings get length 1 again. Full ones have length 1 always.
            truncate_dim: size of the embeddings; EmbeddingGemma was trained for 768, 512, 256 and 128. None for
                `self.truncate_dim`; more than the model has gives what it has, with a warning.
            pool: processes to share the work, from `start_multi_process_pool`.
            chunk_size: texts that a process takes at a time.
            kwargs: `task` has no effect; others are refused.

        Returns:
            float32 (dim,) for one text, (texts, dim) for several, in their order; see output_value and the arguments
            after it.

        Raises:
            InputError: inputs are no texts or not valid Unicode, the prompt is unknown, or an argument is out of range
                or cannot be had on a CPU.
            ModelFileError: the file is damaged, so that a text has no vector: it comes out as zero or not finite.

        Warns:
            TruncationWarning: texts had more than `max_seq_length` tokens, prompt included, and were cut.
        """
        refuse_unknown("encode", kwargs, without_effect=("task",))
        options = self._options(
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
        )
        prefix = self._prompt(prompt_name, prompt)
        texts = check_texts(inputs)
        if chunk_size is not None:
            chunk_size = check_integer("chunk_size", chunk_size, 1)
        with temporary_pool(self, check_devices(device), pool) as processes:
            if processes is None or not texts:
                rows, cut = self._compute(texts, prefix, options)
            else:
                rows, cut = share(self, processes, texts, prefix, options, chunk_size)
        if cut:
            message = (
                f"{len(cut)} of {len(texts)} texts have more than {self._max_seq_length} tokens, the first of them "
                f"text {cut[0]}; the rest was cut off: split long texts into parts"
            )
            warn(TruncationWarning(message, cut))
        return deliver(rows, options, single=is_one_text(inputs))

    encode_query = with_prompt_of(encode, "encode_query", QUERY_PROMPTS)
    encode_document = with_prompt_of(encode, "encode_document", DOCUMENT_PROMPTS)

    def encode_ids(
        self, ids: Iterable[TokenIds], *, truncate_dim: int | None = None, normalize_embeddings: bool = True
    ) -> Embeddings:
        """Embeds token ids, which include `<bos>` and `<eos>`; returns float32 (texts, dim).

        Raises InputError if a text is empty or longer than `config.max_tokens`, or an id is out of range.
        """
        flat, offsets = join_token_ids(ids)
        count = len(offsets) - 1
        options = self._options(
            truncate_dim=truncate_dim, normalize_embeddings=normalize_embeddings, batch_size=max(1, count)
        )
        return self._embed([check_batch(self.config, flat, offsets, options.dim)], count, options)

    @overload
    def token_ids(  # type: ignore[overload-overlap]  # a str is an iterable of str too; the first match wins
        self, inputs: str, *, prompt_name: str | None = ..., prompt: str | None = ...
    ) -> list[int]: ...

    @overload
    def token_ids(
        self, inputs: Iterable[str], *, prompt_name: str | None = ..., prompt: str | None = ...
    ) -> list[list[int]]: ...

    def token_ids(
        self, inputs: str | Iterable[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> list[int] | list[list[int]]:
        """Token ids of one text or several, as `encode` uses them: with prompt, `<bos>` and `<eos>`."""
        prefix = self._prompt(prompt_name, prompt)
        tokenizer = self._text_tokenizer()
        texts = [prefix + text for text in check_texts(inputs)]
        ids = tokenizer.encode_batch(texts, self._max_seq_length).split()
        return ids[0] if is_one_text(inputs) else ids

    # ---- what it is and what it runs on ----

    def fingerprint(
        self, prompt_name: str | None = None, prompt: str | None = None, truncate_dim: int | None = None
    ) -> str:
        """Names the vectors that `encode` gives with the same arguments: MODEL-DIM-TEXT, such as
        "3f79bb7b435b05321651daefd374cdc6-768-e3b0c44298fc1c14".

        Equal: the same texts have the same vectors, but for rounding; so an index that stores this of its documents
        needs no new vectors for old documents. Equal before the last "-": vectors of one model and size, such as of
        queries and of documents, which may be compared. Different there: they must not be.

        MODEL is of the weights, the tokenizer and how this release uses them, DIM the size of the vectors, TEXT of the
        prompt and of `max_seq_length`: of the prompt's text, whatever its name. It is the same for a model file
        wherever it lies, on every platform, backend and instruction set, and in C (`eg_model_fingerprint`). It takes no
        reading of weights. `precision` and `normalize_embeddings` are no part of it.

        Args:
            prompt_name, prompt, truncate_dim: as for `encode`; prompt_name="query" is what `encode_query` uses.

        Raises:
            InputError: the prompt is unknown, or truncate_dim is out of range.
        """
        dim = self._options(batch_size=1, normalize_embeddings=False, truncate_dim=truncate_dim).dim
        return fingerprint(self._digest, dim, self._max_seq_length, self._prompt(prompt_name, prompt))

    @property
    def backend(self) -> str:
        """What computes: "native" (the C engine), "numba", "reference" (slow), or "onnx" (ONNX Runtime)."""
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
    def tokenizer(self) -> TokenizerCalls:
        """Gives token ids by the calls of a Hugging Face tokenizer."""
        tokenizer = self._text_tokenizer()
        return TokenizerCalls(self, tokenizer.encode_batch, tokenizer.vocab)

    @property
    def max_seq_length(self) -> int:
        """Most tokens of a text, prompt, `<bos>` and `<eos>` included; longer texts are cut. It may be lowered."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        self._max_seq_length = check_integer("max_seq_length", tokens, 2, self.config.max_tokens)

    def get_embedding_dimension(self) -> int:
        """Size of an embedding where a call names no other."""
        return min(self._embedding_dim, self.truncate_dim or self._embedding_dim)

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
        if (state := file_state(path)) != self._file_state:
            found = "is gone or cannot be read" if state is None else "has changed"
            raise ModelFileError(
                f"{path}: the file {found} since it was loaded; pools and copies open it: load it again"
            )
        return {name: value for name, value in vars(self).items() if name not in ("_open_backend", "_tokenizer")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        source = state["_source"]
        model_file, backend = source.open()
        check_same(source.path, model_file.digest, state["_digest"])
        vars(self).update(state, path=source.path, _file_state=file_state(source.path))
        self._open_backend, self._tokenizer = backend, open_tokenizer(model_file)

    def __repr__(self) -> str:
        engine = self._open_backend
        running = f"{engine.name} ({engine.isa}), threads={engine.threads}" if engine else "closed"
        return f"<EmbeddingModel {self.path.name!r} scheme={self.scheme} backend={running}>"

    # ---- inside ----

    def _options(self, *, truncate_dim: int | None, **arguments: Any) -> Options:
        """The arguments of `encode` that are no texts and no prompts, checked."""
        dim = self.truncate_dim if truncate_dim is None else truncate_dim
        return check_options(truncate_dim=dim, full_dim=self._embedding_dim, **arguments)

    def _compute(self, texts: list[str], prompt: str, options: Options) -> tuple[Any, list[int]]:
        """Embeddings (texts, dim), or a list of what else the options want for each text; and which texts were cut."""
        tokenizer = self._text_tokenizer()
        limit = self._max_seq_length
        cut: list[int] = []

        def tokenize() -> Iterator[Tokenized]:
            at_once = options.batch_size * max(1, TOKENIZED_AT_ONCE // options.batch_size)
            for start in range(0, len(texts), at_once):
                part = [prompt + text for text in texts[start : start + at_once]]
                tokenized = tokenizer.encode_batch(part, limit)
                cut.extend((start + np.flatnonzero(tokenized.truncated)).tolist())
                yield tokenized.ids, tokenized.offsets

        if options.output_value == "sentence_embedding":
            return self._embed(tokenize(), len(texts), options), cut
        parts = batches(tokenize(), options.batch_size, self.config.max_tokens)
        facts = self.facts_of_prompt(prompt) if options.output_value is None else None
        sizes: dict[str, Any] = {"full_dim": self._embedding_dim, "path": self.path}
        return give_states(self._backend(), parts, len(texts), options, facts, **sizes), cut

    def _embed(self, tokenized: Iterable[Tokenized], count: int, options: Options) -> Embeddings:
        """Embeddings (count, dim) of all texts."""
        parts = batches(tokenized, options.batch_size, self.config.max_tokens)
        return embed(self._backend(), parts, count, options, full_dim=self._embedding_dim, path=self.path)

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

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        """The prompt as given, else by name, else the default one."""
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InputError(f"prompt is of type {type(prompt).__name__}; expected str")
            if name is not None:
                warn(f"both prompt and prompt_name are given; prompt_name={shorten(name)} is ignored")
            check_unicode("prompt", prompt)
            return prompt
        if name is None:
            return self.prompts.get(self.default_prompt_name, "") if self.default_prompt_name is not None else ""
        if not isinstance(name, str) or name not in self.prompts:
            known = ", ".join(self.prompts)
            raise InputError(f"prompt_name={shorten(name)} is not a prompt of this model; it has {known}")
        return self.prompts[name]
