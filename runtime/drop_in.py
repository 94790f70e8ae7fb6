"""`embgemma.SentenceTransformer`: for programs that make a model by that name and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .arguments import check_devices
from .compatible import NO_PRECISION
from .find import opening
from .inputs import check_integer
from .kernels.errors import InputError
from .kernels.safetensors_file import shorten
from .model import EmbeddingModel
from .source import Source

if TYPE_CHECKING:
    import os

    from .kernels.model_file import Scheme


class SentenceTransformer(EmbeddingModel):
    """`embgemma.load` with the arguments of `sentence_transformers.SentenceTransformer`, version 6.

    Args:
        model_name_or_path: a model file, an ONNX model, a bundle or a name, as for `embgemma.load`.
        device: None or "cpu".
        prompts, default_prompt_name, similarity_fn_name, truncate_dim: see `embgemma.load`.
        backend: "torch", the default there, means "auto" here; else as for `embgemma.load`.
        revision, local_files_only, scheme: see `embgemma.load`; token, or use_auth_token: of the Hugging Face hub.
        cache_folder, trust_remote_code: have no effect, since EMBGEMMA_HOME is the cache, and no code is downloaded.
            Nor have, in model_kwargs, attn_implementation and the dtype float32.
        tokenizer_kwargs, processor_kwargs: model_max_length in them sets `max_seq_length`.

    Raises:
        InputError: another argument is given, or one is out of range; and what `embgemma.load` raises.
    """

    def __init__(
        self,
        model_name_or_path: str | os.PathLike[str] | None = None,
        *,
        modules: Any = None,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        cache_folder: str | None = None,
        trust_remote_code: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
        token: bool | str | None = None,
        use_auth_token: bool | str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        config_kwargs: dict[str, Any] | None = None,
        model_card_data: Any = None,
        backend: str = "torch",
        similarity_fn_name: Any = None,
        truncate_dim: int | None = None,
        tokenizer_kwargs: dict[str, Any] | None = None,
        scheme: Scheme | None = None,
    ) -> None:
        del cache_folder, trust_remote_code
        for name, value in (("modules", modules), ("model_card_data", model_card_data)):
            if value:
                raise InputError(f"{name}={shorten(value)} has no meaning for a model file; leave it out")
        _check_model_kwargs(model_kwargs)
        _check_kwargs("config_kwargs", config_kwargs)
        limits = [
            _check_kwargs(name, value, "model_max_length").get("model_max_length")
            for name, value in (("tokenizer_kwargs", tokenizer_kwargs), ("processor_kwargs", processor_kwargs))
        ]
        if model_name_or_path is None:
            raise InputError("model_name_or_path is missing; give the path of a model file, or a name")
        check_devices(device)
        with opening(
            model_name_or_path,
            scheme=scheme,
            revision=revision,
            local_files_only=local_files_only,
            token=use_auth_token if token is None else token,
            argument="model_name_or_path",
        ) as path:
            source = Source(path, "auto" if backend == "torch" else backend)
            super().__init__(*source.open(), source)
        self.configure(truncate_dim, prompts, default_prompt_name, similarity_fn_name)
        for limit in limits:
            if limit is not None:
                self.max_seq_length = min(check_integer("model_max_length", limit, 2), self.max_seq_length)


def _check_model_kwargs(given: Any) -> None:
    """Refuses what changes a model of torch and has no meaning here, such as another precision."""
    for name, value in _check_kwargs("model_kwargs", given, "attn_implementation", "torch_dtype", "dtype").items():
        if name != "attn_implementation" and str(value).removeprefix("torch.") not in ("None", "auto", "float32"):
            raise InputError(f"model_kwargs: {name}={shorten(value)}: {NO_PRECISION}")


def _check_kwargs(argument: str, given: Any, *known: str) -> Mapping[str, Any]:
    """The keyword arguments in an argument; raises InputError if one is not known."""
    if not isinstance(given, Mapping | None):
        raise InputError(f"{argument} is of type {type(given).__name__}; expected a dict")
    for name in given or {}:
        if name not in known:
            raise InputError(f"{argument}: {shorten(name)} has no meaning for a model file; leave it out")
    return given or {}
