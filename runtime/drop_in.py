"""`embgemma.SentenceTransformer`: for programs that make a model by that name and its arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .arguments import check_devices
from .find import find_model_file
from .inputs import check_path
from .kernels.errors import InputError
from .model import EmbeddingModel
from .source import Source

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


class SentenceTransformer(EmbeddingModel):
    """`embgemma.load` with the arguments of `sentence_transformers.SentenceTransformer`, version 6.

    Args:
        model_name_or_path: a model file, an ONNX model or a bundle, as for `embgemma.load`.
        device: None or "cpu".
        prompts, default_prompt_name, similarity_fn_name, truncate_dim: see `embgemma.load`.
        backend: "torch", the default there, means "auto" here; else as for `embgemma.load`.
        cache_folder, trust_remote_code, local_files_only, token, use_auth_token: have no effect, since nothing is
            downloaded.

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
    ) -> None:
        del cache_folder, trust_remote_code, local_files_only, token, use_auth_token
        refused = {
            "modules": modules,
            "revision": revision,
            "model_kwargs": model_kwargs,
            "processor_kwargs": processor_kwargs,
            "config_kwargs": config_kwargs,
            "model_card_data": model_card_data,
            "tokenizer_kwargs": tokenizer_kwargs,
        }
        for name, value in refused.items():
            if value:
                raise InputError(f"{name} has no meaning for a model file; leave it out")
        if model_name_or_path is None:
            raise InputError("model_name_or_path is missing; give the path of a model file")
        check_devices(device)
        path = find_model_file(check_path("model_name_or_path", model_name_or_path))
        source = Source(path, "auto" if backend == "torch" else backend)
        super().__init__(*source.open(), source)
        self.configure(truncate_dim, prompts, default_prompt_name, similarity_fn_name)
