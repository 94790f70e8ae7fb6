"""What a checkpoint's settings may say: those that change vectors must have the value that the engine computes.

Each table gives the accepted values by key; ANY marks a key that changes no vector, or that is read elsewhere. A key
that is absent has its default, which is always accepted. The keys are those that sentence-transformers 2 to 6 and
transformers 4 and 5 read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError
from ...kernels.safetensors_file import shorten
from .json_file import is_there, read_object

ANY = None
Accepted = Mapping[str, tuple[Any, ...] | None]

# config.json, beyond what `checkpoint` reads. transformers ignores keys that it does not know, so others are harmless.
_CONFIG: Accepted = {
    "partial_rotary_factor": (None, 1.0),
    "quantization_config": (None,),
    "auto_map": (None,),  # names code beside the weights
    "pruned_heads": (None, {}),
    "is_decoder": (None, False),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
}

_SENTENCE_TRANSFORMERS: Accepted = {"model_type": (None, "SentenceTransformer")}

_SENTENCE_BERT: Accepted = {
    "max_seq_length": ANY,
    "do_lower_case": (False, None),
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": (None, {}),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    "tokenizer_name_or_path": (None,),
    "unpad_inputs": ANY,  # how padding is avoided
    "backend": ANY,  # what computes
    "cache_dir": ANY,
    "model_args": ANY,  # these six: see _LOADING
    "model_kwargs": ANY,
    "tokenizer_args": ANY,
    "processor_kwargs": ANY,
    "config_args": ANY,
    "config_kwargs": ANY,
}
_ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")

# Arguments of from_pretrained that say how weights get into memory, and in what precision they are multiplied.
_LOADING = (
    *("attn_implementation", "cache_dir", "device_map", "dtype", "local_files_only", "low_cpu_mem_usage", "revision"),
    *("token", "torch_dtype", "trust_remote_code", "use_cache", "use_fast", "use_safetensors"),
)

_MOST_MODULES = 32
_MODULE: Accepted = {"idx": ANY, "name": ANY, "path": ANY, "type": ANY, "kwargs": (None, [])}

_POOLING_MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
_POOLING: Accepted = {
    **dict.fromkeys(("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"), ANY),
    **{f"pooling_mode_{mode}": (True, False) for mode in _POOLING_MODES},
}

_EMBEDDING = (None, "sentence_embedding")
_DENSE: Accepted = {
    **dict.fromkeys(("in_features", "out_features", "bias", "activation_function"), ANY),
    "module_input_name": _EMBEDDING,
    "module_output_name": _EMBEDDING,
    "use_residual": (None, False),
}
_WITHOUT_WEIGHTS: Mapping[str, Accepted] = {
    "Normalize": {"module_input_name": _EMBEDDING, "module_output_name": _EMBEDDING},
    "Dropout": {"dropout": ANY},  # for training
}

# adapter_config.json of peft. Other ways to begin a training than these have changed the weights of the base.
_ADAPTER: Accepted = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "modules_to_save": (None, []),
    "use_dora": (None, False),
    "init_lora_weights": (None, True, False, "gaussian", "eva", "orthogonal"),
    **dict.fromkeys(("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "base_model_name_or_path"), ANY),
    **dict.fromkeys(("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"), ANY),
    **dict.fromkeys(("auto_mapping", "inference_mode", "lora_dropout", "peft_version", "revision", "task_type"), ANY),
    **dict.fromkeys(("ensure_weight_tying", "eva_config", "fan_in_fan_out", "megatron_core", "qalora_group_size"), ANY),
}

# tokenizer_config.json. transformers keeps keys that Gemma's tokenizer does not know and ignores them.
_TOKENIZER_CONFIG: Accepted = {
    "tokenizer_class": (None, "GemmaTokenizer", "GemmaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"),
    "add_bos_token": (True,),
    "add_eos_token": (True,),
    "add_prefix_space": (None, False),
    "do_lower_case": (None, False),
    "strip_accents": (None, False),
    "split_special_tokens": (None, False),
    "truncation_side": (None, "right"),
    "sp_model_kwargs": (None, {}),
    "fix_mistral_regex": (None, False),
    "auto_map": (None,),
}


def check_config(path: Path, raw: Mapping[str, Any]) -> None:
    """Raises CheckpointError if config.json asks for what the engine does not compute."""
    _check(path, raw, _CONFIG)


def check_adapter(path: Path, raw: Mapping[str, Any]) -> None:
    """The same of adapter_config.json; keys that are not known may stand there without a value."""
    _check(path, {key: value for key, value in raw.items() if value or key in _ADAPTER}, _ADAPTER, closed=True)


def check_sentence_transformers(path: Path, raw: Mapping[str, Any], hidden: int) -> None:
    """The same of config_sentence_transformers.json."""
    _check(path, raw, {**_SENTENCE_TRANSFORMERS, "truncate_dim": (None, hidden)})


def check_sentence_bert(folder: Path) -> None:
    """The same of sentence_bert_config.json, where sentence-transformers keeps the settings of the encoder."""
    path = folder / "sentence_bert_config.json"
    if not is_there(path):
        older = sorted(folder.glob("sentence_*_config.json"))
        if older:
            raise CheckpointError(f"{older[0]}: it configures another encoder; rename it to {path.name} if it is right")
        return
    raw = read_object(path)
    _check(path, raw, _SENTENCE_BERT, closed=True)
    for key in _ARGUMENTS:
        arguments = raw.get(key) or {}
        if not isinstance(arguments, dict):
            raise CheckpointError(f"{path}: {key} is {shorten(arguments)}; expected an object of arguments")
        for name in arguments.keys() - {*_LOADING}:
            raise _unknown(path, f"{key}.{name}", arguments[name])


def check_modules(path: Path, modules: list[dict[str, Any]]) -> None:
    """The same of the entries of modules.json, each of which has a type and a path."""
    if len(modules) > _MOST_MODULES:
        raise CheckpointError(f"{path}: it has {len(modules)} modules; expected at most {_MOST_MODULES}")
    for module in modules:
        _check(path, module, _MODULE, closed=True)
        if not module["type"].startswith("sentence_transformers."):
            raise CheckpointError(
                f"{path}: a module is of type {shorten(module['type'])}; only those of sentence_transformers are known"
            )
    names = [module.get("name", module.get("idx")) for module in modules]
    if any(name in names[:i] for i, name in enumerate(names)):
        raise CheckpointError(f"{path}: two modules have one name in {shorten(names)}; give each its own")


def check_pooling(path: Path, raw: Mapping[str, Any]) -> None:
    """The same of the config of a pooling layer."""
    _check(path, raw, _POOLING, closed=True)


def check_dense(path: Path, raw: Mapping[str, Any]) -> None:
    """The same of the config of a dense layer."""
    _check(path, raw, _DENSE, closed=True)


def check_without_weights(path: Path, kind: str) -> None:
    """The same of the config of a Normalize or a Dropout, which older versions do not write."""
    if is_there(path):
        _check(path, read_object(path), _WITHOUT_WEIGHTS[kind], closed=True)


def check_tokenizer_config(path: Path, bos: str, eos: str, *, alone: bool) -> None:
    """The same of tokenizer_config.json; bos and eos are the pieces that the engine puts around a text.

    alone: whether there is no tokenizer.json, which says what goes around a text.
    """
    raw = read_object(path) if is_there(path) else {}
    _check(path, raw, _TOKENIZER_CONFIG)
    stated = sum(key in raw for key in ("add_bos_token", "add_eos_token"))  # transformers takes an absent one for false
    if stated == 1 or (alone and stated == 0):
        found = "one" if stated else "none"
        raise CheckpointError(
            f"{path}: it has {found} of add_bos_token and add_eos_token, so sentence-transformers puts {found} of "
            f"{bos} and {eos} around a text; set both to true, or save the tokenizer again with save_pretrained"
        )
    for key, expected in (("bos_token", bos), ("eos_token", eos)):
        token = raw.get(key)
        if token is not None and (token.get("content") if isinstance(token, dict) else token) != expected:
            raise CheckpointError(f"{path}: {key} is {shorten(token)}; config.json has the id of {expected!r}")


def _check(path: Path, raw: Mapping[str, Any], accepted: Accepted, *, closed: bool = False) -> None:
    """Raises CheckpointError for a value that is not accepted, and, if closed, for a key that is not known."""
    for key, value in raw.items():
        if key not in accepted:
            if closed:
                raise _unknown(path, key, value)
            continue
        values = accepted[key]
        if values is not ANY and value not in values:
            expected = " or ".join(repr(value) for value in values if value is not None) or "null"
            raise CheckpointError(
                f"{path}: {key} is {shorten(value)}; only {expected} is supported, as it changes vectors: "
                "save the model without it"
            )


def _unknown(path: Path, key: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"{path}: the setting {shorten(key)} ({shorten(value)}) is not known here, and may change vectors; save the "
        "model without it"
    )
