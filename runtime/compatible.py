"""The calls of `sentence_transformers.SentenceTransformer` beside `encode`, and what its older names lead to.

Where sentence-transformers gives torch tensors without being asked, as of `tokenize` and `similarity`, these give
arrays; tensors that are given are answered with tensors. So nothing here imports torch by itself.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from . import similarity as _similarity
from .arguments import CPU, check_devices, refuse_unknown
from .inputs import is_one_text
from .kernels.errors import InputError
from .kernels.safetensors_file import shorten
from .pool import start_pool, stop_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy.typing as npt

    from .pool import Pool

Method = TypeVar("Method", bound="Callable[..., Any]")

TRAINS = "embgemma runs models and does not train them; train with sentence-transformers and convert the result"
WRITES = "model files are made by `embgemma convert`"
NO_MODULE = "the forward pass is no torch module; use encode(), with output_value=None for the states of tokens"
NO_PRECISION = "weights have the precision that the model file was converted with; see `embgemma convert --scheme`"
REFUSED = {
    **dict.fromkeys(("fit", "old_fit", "evaluate", "gradient_checkpointing_enable"), TRAINS),
    **dict.fromkeys(("save", "save_pretrained", "save_to_hub", "push_to_hub", "model_card_data"), WRITES),
    **dict.fromkeys(("forward", "modules", "parameters", "state_dict", "compile", "transformers_model"), NO_MODULE),
    **dict.fromkeys(("_first_module", "_last_module", "named_parameters", "named_modules", "children"), NO_MODULE),
    **dict.fromkeys(("half", "bfloat16", "double", "dtype", "type"), NO_PRECISION),
    **dict.fromkeys(("cuda", "xpu", "ipu"), "embgemma computes on the CPU"),
}


class Device(str):
    """The name of a device, with the attribute that code asks of a `torch.device`; torch takes it as one."""

    type = CPU

    def __eq__(self, other: object) -> bool:
        of_torch = type(other).__name__ == "device"
        return str(self) == str(other) if of_torch else super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def takes_sentences(method: Method) -> Method:
    """Lets a method take its argument `inputs` by the older name `sentences` as well."""

    @functools.wraps(method)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        if "sentences" in kwargs:
            kwargs = {"inputs": kwargs.pop("sentences"), **kwargs}
        return method(*args, **kwargs)

    return cast("Method", renamed)


def with_prompt_of(encode: Method, name: str, prompt_names: tuple[str, ...]) -> Method:
    """A method like `encode`, with the first of these prompts that the model has where a call gives none."""

    def encode_with(self: Any, inputs: Any, prompt_name: Any = None, prompt: Any = None, *args: Any, **kw: Any) -> Any:
        if prompt_name is None and prompt is None:
            prompt_name = next((each for each in prompt_names if each in self.prompts), None)
        return encode(self, inputs, prompt_name, prompt, *args, **kw)

    method = takes_sentences(functools.wraps(encode)(encode_with))
    method.__name__, method.__qualname__ = name, f"EmbeddingModel.{name}"
    method.__doc__ = f"`encode` with the prompt {' or '.join(map(repr, prompt_names))} where a call gives no other."
    return cast("Method", method)


class SentenceTransformerCalls:
    """What `EmbeddingModel` has for the sake of programs that were written for sentence-transformers."""

    prompts: dict[str, str]
    truncate_dim: int | None
    _similarity_fn_name: str

    encode: Callable[..., Any]
    token_ids: Callable[..., Any]
    get_embedding_dimension: Callable[[], int]

    if not TYPE_CHECKING:  # else every name would be one of a model's

        def __getattr__(self, name: str) -> Any:
            reason = f": {REFUSED[name]}" if name in REFUSED else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{reason}")

    def __getitem__(self, place: Any) -> Any:
        raise InputError(f"a model has no parts to take by [{shorten(place)}]: {NO_MODULE}")

    def __len__(self) -> int:
        """Raises InputError."""
        raise InputError(f"a model has no parts to count by len(): {NO_MODULE}")

    def __bool__(self) -> bool:
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises InputError."""
        del args, kwargs
        raise InputError(f"a model cannot be called: {NO_MODULE}")

    # ---- similarity ----

    @property
    def similarity_fn_name(self) -> str:
        """How `similarity` compares: "cosine", "dot", "euclidean" or "manhattan"."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: Any) -> None:
        self._similarity_fn_name = _similarity.check_name("cosine" if name is None else getattr(name, "value", name))

    def similarity(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Any:
        """Scores (n, m) of all embeddings1 (n, dim) with all embeddings2 (m, dim), by `similarity_fn_name`.

        float32; a torch tensor if either of them is one, or a list of tensors.
        """
        return _similarity.compare(_similarity.similarity, self._similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: npt.ArrayLike, embeddings2: npt.ArrayLike) -> Any:
        """Scores (n,) of each of embeddings1 (n, dim) with its pair in embeddings2 (n, dim); else as `similarity`.

        A single embedding is the pair of every other; two of them give a score of shape ().
        """
        return _similarity.compare(_similarity.similarity_pairwise, self._similarity_fn_name, embeddings1, embeddings2)

    # ---- tokens ----

    def preprocess(self, inputs: str | Iterable[str], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Token ids of texts as the model gets them, int64 (texts, tokens), shorter texts padded with 0, and a mask.

        Raises what `token_ids` raises.
        """
        refuse_unknown("preprocess", kwargs, without_effect=("task",))
        rows: list[list[int]] = self.token_ids([inputs] if is_one_text(inputs) else inputs, prompt=prompt or "")
        if not rows:
            return {}
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask, **self.facts_of_prompt(prompt or "")}

    def facts_of_prompt(self, prompt: str) -> dict[str, Any]:
        """What features say beside token ids: "modality", and how many tokens the prompt has, `<bos>` included."""
        facts: dict[str, Any] = {"modality": "text"}
        return {**facts, "prompt_length": len(self.token_ids(prompt, prompt="")) - 1} if prompt else facts

    def tokenize(self, texts: str | Iterable[str], **kwargs: Any) -> dict[str, Any]:
        """`preprocess`, which used to have this name."""
        return self.preprocess(texts, **kwargs)

    # ---- sizes ----

    def get_max_seq_length(self) -> int:
        """`max_seq_length`, which used to have this name."""
        return cast("Any", self).max_seq_length  # type: ignore[no-any-return]

    def get_sentence_embedding_dimension(self) -> int:
        """`get_embedding_dimension`, which used to have this name."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within the block, `encode` gives embeddings of this size where a call names none."""
        before = self.truncate_dim
        self.truncate_dim = truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    # ---- devices and processes ----

    @property
    def device(self) -> Device:
        """The CPU."""
        return Device(CPU)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """The model itself, if it is to go to the CPU; raises InputError for all else, such as another dtype."""
        refuse_unknown("to", kwargs, without_effect=("device", "dtype", "non_blocking", "copy"))
        dtypes = [value for value in args if type(value).__name__ == "dtype"]
        for dtype in (*dtypes, kwargs.get("dtype")):
            if dtype is not None and str(dtype) != "torch.float32":
                raise InputError(f"{dtype}: {NO_PRECISION}")
        check_devices([*(value for value in args if value not in dtypes), kwargs.get("device")])
        return self

    def eval(self) -> Any:
        """The model itself, which is never in training."""
        return self

    training = False

    def train(self, mode: bool = True) -> Any:
        """The model itself, if it is not to train; otherwise raises InputError."""
        if mode:
            raise InputError(f"train(): {TRAINS}")
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """The model itself, which has no gradients."""
        del requires_grad
        return self

    def get_backend(self) -> str:
        """`backend`, by a method."""
        return cast("Any", self).backend  # type: ignore[no-any-return]

    def cpu(self) -> Any:
        """The model itself."""
        return self

    def float(self) -> Any:
        """The model itself, which gives float32."""
        return self

    def start_multi_process_pool(self, target_devices: list[str] | None = None) -> Pool:
        """Starts processes that share the work of `encode(..., pool=...)`, one for each "cpu"; 4 if None.

        They open the model file again and compute with as many threads, together, as this model has. The program's
        main module must be one that can be imported, as `multiprocessing` asks.
        """
        return start_pool(cast("Any", self), target_devices)

    @staticmethod
    def stop_multi_process_pool(pool: Pool) -> None:
        """Ends the processes of a pool."""
        stop_pool(pool)

    def encode_multi_process(
        self,
        sentences: Sequence[str],
        pool: Pool,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        chunk_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: Any = "float32",
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> npt.NDArray[Any]:
        """`encode` with a pool, which used to have this name."""
        if isinstance(sentences, str):
            raise InputError("sentences is a str; expected a list of str")
        return self.encode(  # type: ignore[no-any-return]
            sentences,
            prompt_name,
            prompt,
            batch_size,
            show_progress_bar,
            precision=precision,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pool=pool,
            chunk_size=chunk_size,
        )

    # ---- what it can do ----

    @property
    def modalities(self) -> list[str]:
        """What it embeds: text alone."""
        return ["text"]

    def supports(self, modality: Any) -> bool:
        """Whether it embeds this."""
        return bool(modality == "text")

    def is_singular_input(self, inputs: Any) -> bool:
        """Whether `encode` takes this as one text."""
        return is_one_text(inputs)

    def get_model_kwargs(self) -> list[str]:
        """Names of arguments beyond those that `encode` lists: none."""
        return []
