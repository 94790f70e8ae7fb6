"""LoRA adapters (arXiv 2106.09685) as peft writes them: what they add to the matrices of an encoder, or refused.

A matrix W (out, in) becomes W + factor · B · A, with A (rank, in) and B (out, rank); the factor is alpha / rank, or
alpha / sqrt(rank) for rank-stabilised adapters (arXiv 2312.03732).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError
from ...kernels.safetensors_file import shorten
from ..settings.json_file import integer, positive, read_object
from ..settings.settings import check_adapter
from .checkpoint_tensors import LowRank, Weights
from .folders import ADAPTER_CONFIG

_WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"(?:base_model\.model\.)?((?:.+\.)?)(layers\.\d+\.\w+\.\w+)\.lora_([AB])\.weight")
_COSTLY = re.compile(r"\)[*+?{]|([*+{?].*){3}")  # patterns that take Python for ever on some names
_MOST_PATTERN = 200  # characters


def read_adapter(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, LowRank]:
    """What the adapter in a folder adds, by the names of the tensors; shapes are those of the encoder's tensors."""
    path = folder / ADAPTER_CONFIG
    raw = read_object(path)
    check_adapter(path, raw)
    weights = Weights(folder, _WEIGHTS)
    pairs: dict[str, dict[str, str]] = {}
    for name in weights.shapes:
        found = _NAME.fullmatch(name)
        if found is None or len(shapes.get(f"{found[2]}.weight", ())) != 2:
            raise CheckpointError(
                f"{folder / _WEIGHTS}: tensor {shorten(name)} adds to no matrix of the encoder's layers, which have "
                "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj"
            )
        pairs.setdefault(found[1] + found[2], {})[found[3]] = name
    if not pairs:
        raise CheckpointError(f"{folder / _WEIGHTS}: the adapter has no tensors")
    _check_targets(path, raw, pairs, shapes)
    return {
        f"{module[module.rindex('layers.') :]}.weight": _low_rank(path, raw, module, pair, weights, shapes)
        for module, pair in pairs.items()
    }


def _low_rank(
    path: Path,
    raw: dict[str, Any],
    module: str,
    pair: dict[str, str],
    weights: Weights,
    shapes: Mapping[str, tuple[int, ...]],
) -> LowRank:
    """What is added to one matrix, of which `pair` names A and B."""
    out_features, in_features = shapes[f"{module[module.rindex('layers.') :]}.weight"]
    rank = integer(path, _of_module(path, raw, "rank_pattern", "r", module), "r")
    alpha = positive(path, _of_module(path, raw, "alpha_pattern", "lora_alpha", module), "lora_alpha")
    expected = {"A": (rank, in_features), "B": (out_features, rank)}
    found = {side: weights.shapes[name] for side, name in pair.items()}
    if found != expected:
        raise CheckpointError(f"{path}: the adapter of {module} has shapes {found}; expected {expected}")
    factor = alpha / (math.sqrt(rank) if raw.get("use_rslora") else rank)
    return LowRank(weights.read(pair["B"]) * factor, weights.read(pair["A"]))


def _of_module(path: Path, raw: dict[str, Any], patterns: str, key: str, module: str) -> dict[str, Any]:
    """The value of a key for a module: of the first pattern that fits the end of its name, else that for all."""
    by_pattern = raw.get(patterns) or {}
    if not isinstance(by_pattern, dict):
        raise CheckpointError(f"{path}: {patterns} is {shorten(by_pattern)}; expected an object of numbers by module")
    for pattern, value in by_pattern.items():
        try:
            costly = len(pattern) > _MOST_PATTERN or _COSTLY.search(pattern)
            if not costly and re.match(rf"(.*\.)?({pattern})$", module):
                return {key: value}
        except re.error:
            costly = True
        if costly:
            raise CheckpointError(f"{path}: {patterns} has {shorten(pattern)}; expected the name of a module")
    return {key: raw.get(key)}


def _check_targets(
    path: Path, raw: dict[str, Any], pairs: Mapping[str, object], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Checks that the adapter has tensors for every matrix that it was trained for; a pattern is not looked at."""
    targets = raw.get("target_modules")
    prefixes = {module[: module.rindex("layers.")] for module in pairs}
    if len(prefixes) > 1:
        raise CheckpointError(f"{path.parent / _WEIGHTS}: the names of its tensors begin with {shorten(prefixes)}")
    if isinstance(targets, str) or any(raw.get(key) for key in ("layers_to_transform", "exclude_modules")):
        return
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise CheckpointError(f"{path}: target_modules is {shorten(targets)}; expected names of modules")
    prefix = min(prefixes)
    matrices = {prefix + name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2}
    for target in targets:
        aimed = {module for module in matrices if f".{module}".endswith(f".{target}")}
        if not aimed or not aimed <= pairs.keys():
            lacking = min(aimed - pairs.keys(), default="any matrix of the encoder")
            raise CheckpointError(
                f"{path}: target_modules has {shorten(target)}, but the adapter has nothing for {lacking}"
            )
