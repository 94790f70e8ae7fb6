"""Reads the published checkpoint of a Gemma text encoder, as sentence-transformers lays it out, and trusts nothing.

    config.json                          shapes and constants of the encoder
    model.safetensors                    its weights (or shards and model.safetensors.index.json)
    modules.json                         what follows it: mean pooling, dense layers, normalisation
    1_Pooling/, 2_Dense/, 3_Dense/       those modules
    config_sentence_transformers.json    prompts
    tokenizer.model, tokenizer.json      the tokenizer: one of them, or both

What the engine does not compute is refused here, since it would give wrong vectors silently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...inputs import check_integer, check_path
from ...kernels.config import MAX_LAYERS, MAX_VOCABULARY, VOCAB_GRAIN, EncoderConfig
from ...kernels.errors import CheckpointError, ModelFileError, reading
from ...kernels.model_file import check_prompts
from ...kernels.safetensors_file import shorten
from ...notices import warn
from ..settings import settings
from ..settings.json_file import integer, is_there, positive, read_object
from ..tokenizer.tokenizer_files import read_tokenizer
from .adapter import read_adapter
from .checkpoint_tensors import Weights
from .folders import Folders, find_folders
from .modules import PROMPTS

# config.json: the only values that the engine computes. A key that is absent is compared as None.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gemma3_text",),
    "use_bidirectional_attention": (True,),
    "hidden_activation": ("gelu_pytorch_tanh",),
    "attention_bias": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "rope_scaling": (None, {"type": "default"}, {"rope_type": "default"}),
}

SIMILARITY = "cosine"  # sentence-transformers' default
_SUFFIXES, _ADAPTER = (".json", ".model"), "adapter_model"  # of files beside the weights
_LAYER_TYPES = {"sliding_attention": False, "full_attention": True}
_DEFAULT_PATTERN = 6  # of transformers' Gemma3TextConfig: every sixth layer attends to all tokens


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files and shapes were checked; its numbers are read, and checked, when asked for.

    Attributes:
        folder: where it is.
        root: where its modules.json is.
        encoder_folder, tokenizer_folder: where config.json of its encoder is, and where its tokenizer.
        config: shapes and constants of the encoder.
        attention_scale: what scores are scaled by: query_pre_attn_scalar ** -0.5.
        weights: the encoder's tensors, by the names of transformers' Gemma3TextModel.
        dense: the linear layers after pooling, in order; each holds `linear.weight` (out, in).
        prompts, default_prompt_name, similarity_fn_name: as published.
        tokenizer_model: the bytes of the sentencepiece model.
    """

    folder: Path
    root: Path
    encoder_folder: Path
    tokenizer_folder: Path
    config: EncoderConfig
    attention_scale: float
    weights: Weights
    dense: tuple[Weights, ...]
    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    tokenizer_model: bytes

    def files(self) -> Iterator[Path]:
        """The files that it is, or may be, made of; none of them may be lost."""
        for weights in (self.weights, *self.dense):
            yield from weights.files
        for folder in {self.folder, self.root, self.encoder_folder}:
            found = folder.rglob("*")
            yield from (path for path in found if path.suffix in _SUFFIXES or path.name.startswith(_ADAPTER))


def read_checkpoint(
    folder: str | os.PathLike[str],
    *,
    sliding_window: int | None = None,
    base: str | os.PathLike[str] | None = None,
) -> Checkpoint:
    """Opens the checkpoint in `folder`; raises CheckpointError for what is missing, wrong or not supported.

    sliding_window replaces the value in config.json: that of the published model where a library re-saved it wrongly.
    If there is a LoRA adapter, it is added to the weights that it was trained on; base is their folder, if the
    adapter's config does not name it.
    """
    folder = check_path("checkpoint", folder)
    if sliding_window is not None:
        sliding_window = check_integer("sliding_window", sliding_window, 2, MAX_VOCABULARY)
    with reading(folder, CheckpointError):
        return _read_checkpoint(folder, sliding_window, None if base is None else check_path("base", base))


def _read_checkpoint(folder: Path, sliding_window: int | None, base: Path | None) -> Checkpoint:
    """See `read_checkpoint`."""
    if not folder.is_dir():
        found = "this is a file" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder}: {found}; give the folder that holds config.json")
    folders = find_folders(folder, base)
    modules, path = folders.modules, folders.encoder / "config.json"
    raw, config = _read_config(folders, sliding_window)
    weights = Weights(folders.encoder)
    rows = integer(path, raw, "vocab_size")
    weights.check(_encoder_tensors(config, rows))
    if folders.adapter is not None:
        with reading(folders.adapter, CheckpointError):
            weights.add(read_adapter(folders.adapter, weights.shapes))
    published: tuple[dict[str, str], str | None, str] = {}, None, SIMILARITY
    if modules.pooling is not None:
        with reading(folders.root / PROMPTS, CheckpointError):
            published = _read_prompts(folders.root / PROMPTS, config.hidden)
    prompts, default_prompt_name, similarity_fn_name = published
    if not modules.normalized and similarity_fn_name != SIMILARITY:
        raise CheckpointError(
            f"{folders.root / PROMPTS}: similarity_fn_name is {shorten(similarity_fn_name)}, and no Normalize comes "
            f"last in modules.json; only {SIMILARITY!r} is supported there, as embgemma's vectors have length 1"
        )
    return Checkpoint(
        folder=folder,
        root=folders.root,
        encoder_folder=folders.encoder,
        tokenizer_folder=folders.tokenizer,
        config=config,
        attention_scale=_attention_scale(path, raw),
        weights=weights,
        dense=modules.read_dense(config.hidden),
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=similarity_fn_name,
        tokenizer_model=read_tokenizer(folders.tokenizer, rows, config.bos_id, config.eos_id),
    )


def read_config(folder: Path, *, sliding_window: int | None = None) -> EncoderConfig:
    """The config of a checkpoint whose weights and tokenizer may be missing yet; raises as `read_checkpoint` does."""
    with reading(folder, CheckpointError):
        return _read_config(find_folders(folder, None), sliding_window)[1]


def _read_config(folders: Folders, sliding_window: int | None) -> tuple[dict[str, Any], EncoderConfig]:
    """The raw config.json, and what the engine takes of it."""
    path = folders.encoder / "config.json"
    raw = read_object(path)
    settings.check_config(path, raw)
    settings.check_sentence_bert(folders.modules.encoder)
    limit = _max_tokens(folders.modules.encoder, folders.tokenizer, integer(path, raw, "max_position_embeddings"))
    return raw, _encoder_config(path, raw, limit, sliding_window)


# ---- config.json ------------------------------------------------------------------------------------------------


def _encoder_config(path: Path, raw: dict[str, Any], max_tokens: int, sliding_window: int | None) -> EncoderConfig:
    """The config of the encoder, from the raw config.json."""
    for key, supported in _SUPPORTED.items():
        if raw.get(key) not in supported:
            expected = " or ".join(repr(value) for value in supported)
            raise CheckpointError(
                f"{path}: {key} is {shorten(raw.get(key))}; only {expected} is supported: "
                "this is another architecture than EmbeddingGemma's"
            )
    layers = integer(path, raw, "num_hidden_layers")
    if layers > MAX_LAYERS:
        raise CheckpointError(f"{path}: num_hidden_layers is {layers}; expected at most {MAX_LAYERS}")
    theta_sliding, theta_full = _rope_thetas(path, raw)
    eos = raw.get("eos_token_id")  # or a list, whose others end what is generated
    try:
        return EncoderConfig(
            layers=layers,
            hidden=integer(path, raw, "hidden_size"),
            ffn=integer(path, raw, "intermediate_size"),
            heads=integer(path, raw, "num_attention_heads"),
            kv_heads=integer(path, raw, "num_key_value_heads"),
            head_dim=integer(path, raw, "head_dim"),
            vocab=-(-integer(path, raw, "vocab_size") // VOCAB_GRAIN) * VOCAB_GRAIN,  # see Weights.read_rows
            max_tokens=max_tokens,
            window=_window(path, raw, sliding_window),
            full_attention_layers=_full_attention_layers(path, raw, layers),
            rope_theta_sliding=theta_sliding,
            rope_theta_full=theta_full,
            rms_norm_eps=positive(path, raw, "rms_norm_eps"),
            bos_id=integer(path, raw, "bos_token_id"),
            eos_id=integer(path, {"eos_token_id": eos[0] if isinstance(eos, list) and eos else eos}, "eos_token_id"),
        ).validate()
    except ModelFileError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _window(path: Path, raw: dict[str, Any], override: int | None) -> int:
    """How far a token of a sliding layer sees: half of the raw window, to both sides.

    transformers halves the value when it loads a bidirectional model. Versions before 5 saved the halved value: 512
    came back as 257, and that as 129. A published window is even; a halved one is odd.
    """
    window = integer(path, raw, "sliding_window") if override is None else override
    if window < 1 or window % 2:
        raise CheckpointError(
            f"{path}: sliding_window is {window}; expected an even number. An old transformers re-saves 512 as 257, "
            "then 129: give the published model's value, with sliding_window=512 (--sliding-window 512)"
        )
    return window // 2


def _full_attention_layers(path: Path, raw: dict[str, Any], layers: int) -> tuple[int, ...]:
    """The layers that attend to all tokens: newer files list them, older ones have a pattern."""
    types = raw.get("layer_types")
    if types is None:
        pattern = raw.get("sliding_window_pattern", _DEFAULT_PATTERN)
        if type(pattern) is not int or pattern < 1:
            raise CheckpointError(f"{path}: sliding_window_pattern is {shorten(pattern)}; expected a positive integer")
        private = raw.get("_sliding_window_pattern", pattern)
        if private != pattern:
            raise CheckpointError(
                f"{path}: _sliding_window_pattern is {shorten(private)}, but transformers does not read it and takes "
                f"{pattern}; name it sliding_window_pattern if it is right, or else remove it"
            )
        return tuple(range(pattern - 1, layers, pattern))
    if not isinstance(types, list) or len(types) != layers or not all(kind in [*_LAYER_TYPES] for kind in types):
        raise CheckpointError(
            f"{path}: layer_types is {shorten(types)}; expected {layers} entries of {', '.join(_LAYER_TYPES)}"
        )
    return tuple(i for i, kind in enumerate(types) if _LAYER_TYPES[kind])


def _rope_thetas(path: Path, raw: dict[str, Any]) -> tuple[float, float]:
    """The rotary bases of sliding and of full layers: in rope_parameters since transformers 5, at top level before."""
    parameters = raw.get("rope_parameters")
    if parameters is None:
        return positive(path, raw, "rope_local_base_freq"), positive(path, raw, "rope_theta")
    thetas = []
    for kind in _LAYER_TYPES:
        rope = parameters.get(kind) if isinstance(parameters, dict) else None
        if not isinstance(rope, dict) or rope.keys() != {"rope_type", "rope_theta"} or rope["rope_type"] != "default":
            raise CheckpointError(
                f"{path}: rope_parameters of {kind} is {shorten(rope)}; expected rope_type 'default' and a rope_theta, "
                "as scaled rotary embeddings are not supported"
            )
        thetas.append(positive(path, rope, "rope_theta"))
    return thetas[0], thetas[1]


def _attention_scale(path: Path, raw: dict[str, Any]) -> float:
    """What scores are scaled by."""
    scalar, most = positive(path, raw, "query_pre_attn_scalar"), 1e6
    if not 1 / most <= scalar <= most:  # beyond, norms and scores leave the range of float32
        raise CheckpointError(f"{path}: query_pre_attn_scalar is {scalar}; expected {1 / most} to {most:.0f}")
    return float(scalar**-0.5)


def _max_tokens(encoder: Path, tokenizer: Path, positions: int) -> int:
    """The longest text: what sentence-transformers would truncate to."""
    lengths = {"max_seq_length": encoder / "sentence_bert_config.json"}
    lengths["model_max_length"] = tokenizer / "tokenizer_config.json"
    for key, path in lengths.items():
        if is_there(path):
            limit = read_object(path).get(key)
            if limit is not None:
                found = integer(path, {key: limit}, key)
                if found > positions and key == "max_seq_length":  # the other is often a number for "any length"
                    warn(f"{path}: {key} is {found}, but texts are cut at {positions}, the max_position_embeddings")
                return min(positions, found)
    return positions


def _encoder_tensors(config: EncoderConfig, rows: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the encoder's tensors, as transformers' Gemma3TextModel has them."""
    hidden, ffn, head_dim = config.hidden, config.ffn, config.head_dim
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (config.q_width, hidden),
        "self_attn.k_proj": (config.kv_width, hidden),
        "self_attn.v_proj": (config.kv_width, hidden),
        "self_attn.q_norm": (head_dim,),
        "self_attn.k_norm": (head_dim,),
        "self_attn.o_proj": (hidden, config.q_width),
        "post_attention_layernorm": (hidden,),
        "pre_feedforward_layernorm": (hidden,),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
        "post_feedforward_layernorm": (hidden,),
    }
    tensors: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (rows, hidden)}
    for i in range(config.layers):
        tensors.update({f"layers.{i}.{name}.weight": shape for name, shape in layer.items()})
    return {**tensors, "norm.weight": (hidden,)}


def _read_prompts(path: Path, hidden: int) -> tuple[dict[str, str], str | None, str]:
    """The prompts by name, the name of the default one or None, and how embeddings are compared."""
    raw = read_object(path)
    settings.check_sentence_transformers(path, raw, hidden)
    prompts, default = raw.get("prompts", {}), raw.get("default_prompt_name")
    check_prompts(prompts, default)
    similarity = raw.get("similarity_fn_name") or SIMILARITY
    if not isinstance(similarity, str):
        raise CheckpointError(f"{path}: similarity_fn_name is {shorten(similarity)}; expected a name such as 'cosine'")
    return prompts, default, similarity
