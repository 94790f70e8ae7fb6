"""What every call does with texts: it finds the prompt, tokenizes, checks the limits, and waits for the vectors."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ..inputs import join_token_ids
from ..kernels.batch import check_batch
from ..kernels.errors import InputError
from ..kernels.safetensors_file import shorten
from ..model import DOCUMENT_PROMPTS, QUERY_PROMPTS
from .batcher import Batcher
from .metrics import Metrics
from .requests import BAD_REQUEST, TOO_LARGE, TOO_MANY, RequestError, check_text, kind, wrong

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ..batches import Tokenized
    from ..model import EmbeddingModel

    Inputs: TypeAlias = list[str] | list[list[int]]

INPUT_TYPES = {
    **dict.fromkeys(("query", "search_query"), QUERY_PROMPTS),
    **dict.fromkeys(("document", "search_document", "passage"), DOCUMENT_PROMPTS),
}
MOST_WAIT = 60  # seconds that a client is told to wait
INLINE_LENGTH = 10_000  # fewer characters, or token ids, are done with before others would notice
LATEST = ":latest"  # that Ollama's clients put after a name
NOT_FOUND = 404


@dataclass(frozen=True)
class Limits:
    """What is taken at most.

    Attributes:
        body: bytes of a request.
        texts: of a request.
        queue: tokens that wait, of all requests together.
    """

    body: int = 8 << 20
    texts: int = 2048
    queue: int = 1 << 18


@dataclass(frozen=True)
class Embedded:
    """Unit vectors float32 (texts, dim), and how many tokens the texts had with their prompts."""

    vectors: npt.NDArray[np.float32]
    tokens: int


class Service:
    """A model that answers many at once.

    Attributes:
        name: of the model, as clients give it.
        default_prompt: name of the prompt where a request names none; None for no prompt.
        full_dim: size of a vector where a request names none.
    """

    def __init__(self, model: EmbeddingModel, name: str, default_prompt: str | None, limits: Limits) -> None:
        self.model, self.name, self.limits = model, name, limits
        self.default_prompt = model.default_prompt_name if default_prompt is None else default_prompt
        if self.default_prompt not in (None, *model.prompts):
            known = ", ".join(model.prompts)
            raise InputError(f"default prompt {shorten(default_prompt)} is not of this model; it has {known}")
        self.full_dim = model.get_embedding_dimension()
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(model, self.metrics.passed)

    def check_model(self, name: str) -> None:
        """Raises RequestError unless this is the name of the model; "" stands for it."""
        if name not in ("", self.name, self.name + LATEST):
            message = f"the model {shorten(name)} is not here; this server has {self.name}"
            raise RequestError(NOT_FOUND, message, "model_not_found", "model")

    def prompt_name(self, input_type: str, prompt_name: str) -> str | None:
        """The prompt that a request means, which has "" for what it does not say."""
        if input_type and prompt_name:
            raise wrong("prompt_name", "input_type and prompt_name are both there; give one of them")
        if input_type:
            if input_type not in INPUT_TYPES:
                raise wrong("input_type", f"input_type is {shorten(input_type)}; expected {_either(INPUT_TYPES)}")
            return next(name for name in INPUT_TYPES[input_type] if name in self.model.prompts)
        if prompt_name and prompt_name not in self.model.prompts:
            raise wrong("prompt_name", f"prompt_name is {shorten(prompt_name)}; expected {_either(self.model.prompts)}")
        return prompt_name or self.default_prompt

    def check_inputs(self, value: Any) -> Inputs:
        """One or more texts, or the token ids of one text or more."""
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise wrong("input", f"input is {kind(value)}; expected a string, token ids, or an array of either")
        one = bool(value) and type(value[0]) is int
        if one:
            value = [value]
        if not value:
            raise wrong("input", "input is an empty array; expected one text at least")
        if len(value) > self.limits.texts:
            message = f"input has {len(value)} texts; expected {self.limits.texts} at most: send fewer at a time"
            raise RequestError(TOO_LARGE, message, "too_many_texts", "input")
        texts = isinstance(value[0], str)
        for i, item in enumerate(value):
            if texts and isinstance(item, str):
                check_text(f"input[{i}]", item)
            elif texts or not isinstance(item, list):
                first = "a string" if texts else "an array of token ids"
                expected = f"{first}, as input[0] is" if i else "a string, or an array of token ids"
                raise wrong("input", f"input[{i}] is {kind(item)}; expected {expected}")
            else:
                _check_token_types("input" if one else f"input[{i}]", item)
        return cast("Inputs", value)

    async def embed(self, inputs: Inputs, prompt_name: str | None, dim: int, *, truncate: bool) -> Embedded:
        """Vectors of texts that check_inputs gave; raises RequestError for those that do not fit."""
        if isinstance(inputs[0], str):
            prompt = self.model.prompts[prompt_name] if prompt_name is not None else ""
            tokenize = partial(self._tokenize, inputs, prompt, truncate)
        else:
            tokenize = partial(self._check_ids, inputs)
        small = sum(map(len, inputs)) < INLINE_LENGTH
        ids, offsets = tokenize() if small else await asyncio.to_thread(tokenize)
        self._admit(len(ids))
        vectors = await self.batcher.embed((ids, offsets), dim)
        self.metrics.embedded(len(vectors), len(ids))
        return Embedded(vectors, len(ids))

    def close(self) -> None:
        """Ends the thread that computes. The model stays open."""
        self.batcher.close()

    def _tokenize(self, texts: Any, prompt: str, truncate: bool) -> Tokenized:
        most = self.model.max_seq_length
        tokenized = self.model.tokenizer.encode_batch([prompt + text for text in texts], most)
        if not truncate and tokenized.truncated.any():
            first = int(tokenized.truncated.argmax())
            message = (
                f"input[{first}] has more than {most} tokens with its prompt, the most that the model takes; split it, "
                'or send "truncate": true to embed its beginning'
            )
            raise RequestError(BAD_REQUEST, message, "context_length_exceeded", "input")
        return tokenized.ids, tokenized.offsets

    def _check_ids(self, rows: Any) -> Tokenized:
        """Token ids must begin with <bos> and end with <eos>: those of another tokenizer are seen by that."""
        config = self.model.config
        for i, row in enumerate(rows):
            if row[:1] != [config.bos_id] or row[-1:] != [config.eos_id]:
                message = (
                    f"input[{i}] has token ids of another model: expected {config.bos_id}, <bos>, at the beginning and "
                    f"{config.eos_id}, <eos>, at the end; send text, as LangChain's OpenAIEmbeddings does with "
                    "check_embedding_ctx_length=False"
                )
                raise wrong("input", message)
        try:
            return check_batch(config, *join_token_ids(rows), self.full_dim)
        except InputError as error:
            raise wrong("input", f"input: {error}") from None

    def _admit(self, tokens: int) -> None:
        most, waiting = self.limits.queue, self.batcher.waiting
        if tokens > most:
            message = f"the request has {tokens} tokens; expected {most} at most: send fewer texts at a time"
            raise RequestError(TOO_LARGE, message, "request_too_large", "input")
        if waiting + tokens > most:
            seconds = min(max(1, math.ceil(self.batcher.seconds)), MOST_WAIT)
            message = f"{waiting} tokens are waiting, and there is room for {most}; try again in {seconds} s"
            raise RequestError(TOO_MANY, message, "rate_limit_exceeded", None, seconds)


def _check_token_types(name: str, ids: list[Any]) -> None:
    for i, token in enumerate(ids):
        if type(token) is not int:
            raise wrong("input", f"{name}[{i}] is {kind(token)}; expected a token id, which is a whole number")


def _either(names: Any) -> str:
    return "one of " + ", ".join(map(repr, names))
