"""Which file a user means who gives a folder or a name, or what to do to get one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from .kernels.errors import ModelFileError, reading

_MANIFEST = "manifest.json"  # of a bundle
_BUNDLED = ("onnx/model.onnx", "model.onnx")
_OF_CHECKPOINT = ("modules.json", "config.json", "adapter_config.json")
_HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)|(?:https?:/)?(?:huggingface|hf)\.co/([\w.-]+/[\w.-]+)(?:/.*)?")  # of a Path


def find_model_file(path: Path) -> Path:
    """The model file at `path`, or in the bundle there; raises ModelFileError for what must be converted first."""
    with reading(path, ModelFileError):
        return _find_model_file(path)


def _find_model_file(path: Path) -> Path:
    """See `find_model_file`."""
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return path
    if str(path).startswith("~"):
        raise ModelFileError(f"{path}: there is no such file; ~ is expanded by shells alone: give the whole path")
    found = _HUB_NAME.fullmatch(path.as_posix())
    if found and not path.parent.is_dir():
        place = found[1] or found[2]
        name = place.partition("/")[2]
        raise ModelFileError(
            f"{place}: there is no such file; if the Hugging Face hub has it, download it once: hf download {place} "
            f"--local-dir {name} && {_convert(Path(name))}, then load that file"
        )
    if re.match("https?:/", str(path)):
        raise ModelFileError(f"{path}: this is an address, and nothing is downloaded here; give the path of a file")
    return path


def _in_folder(folder: Path) -> Path:
    if (folder / _MANIFEST).is_file():
        for name in _BUNDLED:
            if (folder / name).is_file():
                return folder / name
    if any((folder / name).is_file() for name in _OF_CHECKPOINT):
        raise ModelFileError(
            f"{folder}: this is a checkpoint; convert it once: {_convert(folder)}, then load that file"
        )
    files = sorted(file.name for suffix in ("safetensors", "onnx") for file in folder.glob(f"*.{suffix}"))
    found = f"give the path of one of its files, such as {files[0]}" if files else "it holds no model"
    raise ModelFileError(f"{folder}: this is a folder, and no checkpoint; {found}")


def _convert(folder: Path) -> str:
    name = folder.absolute().name or "model"
    return f"embgemma convert {shlex.quote(str(folder))} -o {shlex.quote(f'{name}.int8.safetensors')}"
