"""What follows the encoder, as modules.json lists it: mean pooling, dense layers, normalisation."""

from __future__ import annotations

from pathlib import Path

from ...kernels.errors import CheckpointError
from ...kernels.safetensors_file import shorten
from ..settings import settings
from ..settings.json_file import integer, read_json, read_object
from .checkpoint_tensors import Weights


def read_modules(folder: Path, hidden: int) -> tuple[Weights, ...]:
    """Checks that the encoder is followed by mean pooling, dense layers and normalisation; gives the dense layers."""
    path = folder / "modules.json"
    modules = read_json(path)
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and isinstance(module.get("type"), str) and isinstance(module.get("path"), str)
        for module in modules
    ):
        raise CheckpointError(f"{path}: it is {shorten(modules)}; expected a list of modules with type and path")
    settings.check_modules(path, modules)
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    dense_count = kinds.count("Dense")
    if dense_count < 1 or kinds != ["Transformer", "Pooling", *["Dense"] * dense_count, "Normalize"]:
        raise CheckpointError(
            f"{path}: the modules are {', '.join(kinds)}; expected Transformer, Pooling, Dense (one or more), Normalize"
        )
    _check_pooling(folder / modules[1]["path"] / "config.json", hidden)
    settings.check_normalize(folder / modules[-1]["path"] / "config.json")
    dense, width = [], hidden
    for module in modules[2:-1]:
        weights, width = _read_dense(folder / module["path"], width)
        dense.append(weights)
    if width != hidden:
        raise CheckpointError(f"{path}: the dense layers end with {width} features; expected {hidden}, the hidden size")
    return tuple(dense)


def _check_pooling(path: Path, hidden: int) -> None:
    """Checks that tokens are averaged, prompt included. sentence-transformers 5 and 6 write different keys."""
    raw = read_object(path)
    settings.check_pooling(path, raw)
    modes = [key.removeprefix("pooling_mode_") for key in raw if key.startswith("pooling_mode_") and raw[key] is True]
    mode = raw.get("pooling_mode", modes)
    if mode not in ("mean", ["mean"], ["mean_tokens"]) or raw.get("include_prompt", True) is not True:
        raise CheckpointError(f"{path}: the pooling is {shorten(raw)}; only the mean over all tokens is supported")
    width = raw.get("embedding_dimension", raw.get("word_embedding_dimension"))
    if width != hidden:
        raise CheckpointError(f"{path}: it pools {shorten(width)} features; expected {hidden}, the hidden size")


def _read_dense(folder: Path, in_features: int) -> tuple[Weights, int]:
    """One dense layer, and how many features come out of it."""
    path = folder / "config.json"
    raw = read_object(path)
    settings.check_dense(path, raw)
    out_features = integer(path, raw, "out_features")
    if raw.get("in_features") != in_features:
        raise CheckpointError(f"{path}: in_features is {shorten(raw.get('in_features'))}; expected {in_features}")
    if raw.get("bias") is not False:
        raise CheckpointError(f"{path}: bias is {shorten(raw.get('bias'))}; only layers without bias are supported")
    activation = raw.get("activation_function")
    if activation not in ("torch.nn.modules.linear.Identity", "torch.nn.Identity"):
        raise CheckpointError(f"{path}: activation_function is {shorten(activation)}; only Identity is supported")
    weights = Weights(folder)
    weights.check({"linear.weight": (out_features, in_features)})
    return weights, out_features
