"""The modules of a checkpoint, as modules.json lists them: encoder, mean pooling, dense layers, normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...kernels.errors import CheckpointError
from ...kernels.safetensors_file import shorten
from ...notices import warn
from ..settings import settings
from ..settings.json_file import integer, is_there, read_json, read_object
from .checkpoint_tensors import Weights

MODULES, PROMPTS = "modules.json", "config_sentence_transformers.json"
_LONGEST_PATH = 255  # characters of the path of a module
_LINEAR = ("Dense", "Normalize", "Dropout")  # what may follow pooling: a norm in between changes only the length


@dataclass(frozen=True)
class Modules:
    """Where the modules of a checkpoint lie.

    Attributes:
        listed: modules.json, or the folder of an encoder without one.
        encoder: the folder of the encoder.
        pooling: the folder of the pooling; None without modules.json.
        dense: the folders of the dense layers, in order.
        normalized: whether vectors have length 1.
    """

    listed: Path
    encoder: Path
    pooling: Path | None = None
    dense: tuple[Path, ...] = ()
    normalized: bool = False

    def read_dense(self, hidden: int) -> tuple[Weights, ...]:
        """Checks pooling and dense layers, which keep the encoder's hidden size; gives the dense layers."""
        if self.pooling is not None:
            _check_pooling(self.pooling / "config.json", hidden)
        dense, width = [], hidden
        for folder in self.dense:
            weights, width = _read_dense(folder, width)
            dense.append(weights)
        if width != hidden:
            raise CheckpointError(
                f"{self.listed}: the dense layers end with {width} features; expected {hidden}, the hidden size"
            )
        return tuple(dense)


def find_modules(folder: Path) -> Modules:
    """The modules of the checkpoint in a folder; raises CheckpointError for any that the engine does not compute."""
    path = folder / MODULES
    if is_there(folder / "config.json") and not any(is_there(folder / name) for name in (MODULES, PROMPTS)):
        return _plain_encoder(folder)
    listed = read_json(path)
    if not isinstance(listed, list) or not all(
        isinstance(module, dict) and isinstance(module.get("type"), str) and isinstance(module.get("path"), str)
        for module in listed
    ):
        raise CheckpointError(f"{path}: it is {shorten(listed)}; expected a list of modules with type and path")
    settings.check_modules(path, listed)
    kinds = [module["type"].rpartition(".")[2] for module in listed]
    if kinds[:2] != ["Transformer", "Pooling"] or not {*kinds[2:]} <= {*_LINEAR}:
        raise CheckpointError(
            f"{path}: the modules are {', '.join(kinds)}; expected Transformer and Pooling, and after them none but "
            f"{', '.join(_LINEAR)}"
        )
    encoder, pooling, *others = [_folder(path, module) for module in listed]
    for kind, other in zip(kinds[2:], others, strict=True):
        if kind != "Dense":
            settings.check_without_weights(other / "config.json", kind)
    if "Normalize" not in kinds[-1:]:
        warn(f"{path}: no Normalize comes last; embgemma's vectors have length 1 all the same")
    dense = tuple(other for kind, other in zip(kinds[2:], others, strict=True) if kind == "Dense")
    return Modules(path, encoder, pooling, dense, normalized=kinds[-1] == "Normalize")


def _plain_encoder(folder: Path) -> Modules:
    """What sentence-transformers makes of a folder that transformers saved: the mean over tokens, and nothing else."""
    raw = read_object(folder / "config.json")
    made_for = raw.get("architectures")
    if isinstance(made_for, list) and any(str(name).endswith("ForCausalLM") for name in made_for):
        raise CheckpointError(
            f"{folder}: there is no {MODULES}, and of {shorten(made_for)} sentence-transformers would take the vector "
            f"of the last token, which is not supported; copy {MODULES} and the folders in it from the published model"
        )
    warn(
        f"{folder}: there is no {MODULES}, so vectors are the mean over tokens, as in sentence-transformers: without "
        "prompts, and without the dense layers that EmbeddingGemma has"
    )
    return Modules(folder, folder)


def _folder(path: Path, module: dict[str, Any]) -> Path:
    """The folder of a module, inside of that of modules.json."""
    relative = Path(module["path"])
    if len(str(relative)) > _LONGEST_PATH:
        raise CheckpointError(f"{path}: path {shorten(module['path'])} is too long for the name of a folder")
    inside = (path.parent / relative).resolve().is_relative_to(path.parent.resolve())  # links are followed
    if relative.is_absolute() or ".." in relative.parts or not inside:
        raise CheckpointError(f"{path}: path {shorten(module['path'])} leaves the folder; expected one inside of it")
    return path.parent / relative


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
