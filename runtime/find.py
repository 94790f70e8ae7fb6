"""Which file a user means who gives a path, a folder or a name, and how to get one where there is none."""

from __future__ import annotations

import re
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .inputs import check_path, check_truth
from .kernels.errors import InputError, ModelFileError, reading
from .kernels.safetensors_file import shorten

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from .kernels.model_file import Scheme

IN_THE_BOX = "embgemma-tiny"  # the model that comes with the package, and is taken where none is named
SUFFIXES = (".safetensors", ".onnx")  # of the files that hold a model
_MANIFEST = "manifest.json"  # of a bundle
_BUNDLED = ("onnx/model.onnx", "model.onnx")
_OF_CHECKPOINT = ("modules.json", "config.json", "adapter_config.json")
_MOST_NAME = 96  # of a name on the hub
_HUB_NAME = re.compile(r"(?!.*(?:--|\.\.))(?:[a-z0-9_][\w.-]*)/[a-z0-9_](?:[\w.-]*\w)?", re.IGNORECASE | re.ASCII)
_HUB_ADDRESS = re.compile(
    r"(?:https?:/)?(?:www\.)?(?:huggingface|hf)\.co/([\w.-]+/[\w.-]+)(?:/.*)?", re.ASCII
)  # of a Path


@contextmanager
def opening(
    name: str | os.PathLike[str],
    *,
    scheme: Scheme | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    token: bool | str | None = None,
    argument: str = "path",
) -> Iterator[Path]:
    """Gives the model file that a path or a name means to a block that opens it; for the rest see `embgemma.load`.

    Whatever exists under a path wins over names. A name of the hub that is not in the cache is downloaded. Raises
    ModelFileError for what must be converted first, and HubError for what the hub does not give.
    """
    path = check_path(argument, name)
    with reading(path, ModelFileError):
        found = _in_place(path)
    if found is None and isinstance(name, str) and is_hub_name(name):
        from .hub.pull import find_or_pull  # few need it

        offline = check_truth("local_files_only", local_files_only)
        entry = find_or_pull(name, scheme, revision, local_files_only=offline, token=token)
        try:
            yield entry.path
        except ModelFileError as error:
            remove = f"embgemma cache remove {name} --scheme {entry.scheme}"
            raise ModelFileError(f"{error}; or run `{remove}`, and it is made anew when it is asked for") from error
        return
    for option, value in (("scheme", scheme), ("revision", None if revision == "main" else revision)):
        if value is not None:
            raise InputError(f"{option}={shorten(value)} has no meaning for a model file; leave it out")
    yield found or path


def is_hub_name(name: str) -> bool:
    """Whether a repository of the Hugging Face hub may have this name; what ends as a file is none."""
    return len(name) <= _MOST_NAME and not name.endswith(SUFFIXES) and _HUB_NAME.fullmatch(name) is not None


def check_hub_name(name: object) -> None:
    """Raises InputError unless a repository of the Hugging Face hub may have this name."""
    if not isinstance(name, str) or not is_hub_name(name):
        raise InputError(f"{shorten(name)} is no name on the Hugging Face hub; expected OWNER/NAME and nothing else")


def _in_place(path: Path) -> Path | None:
    """What is at a path, or in the box; None if nothing is."""
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return path
    if str(path) == IN_THE_BOX:
        return _in_the_box()
    if str(path).startswith("~"):
        raise ModelFileError(f"{path}: there is no such file; ~ is expanded by shells alone: give the whole path")
    address = _HUB_ADDRESS.fullmatch(path.as_posix())
    if address and not path.parent.is_dir():
        raise ModelFileError(f"{path}: this is an address; give the name alone, {address[1]}")
    if re.match("https?:/", str(path)):
        raise ModelFileError(f"{path}: this is an address, and nothing is downloaded here; give the path of a file")
    if len(path.parts) == 1 and path.suffix not in SUFFIXES:
        raise ModelFileError(
            f"{path}: there is no such file; a name on the Hugging Face hub begins with its owner, such as "
            "google/embeddinggemma-300m"
        )
    return None


def path_in_the_box() -> Path:
    """Where the model that comes with the package is, if this install has it."""
    from importlib.resources import files

    return Path(str(files(__package__) / "models" / f"{IN_THE_BOX}.safetensors"))


def _in_the_box() -> Path:
    path = path_in_the_box()
    if not path.is_file():
        raise ModelFileError(
            f"{IN_THE_BOX}: this install came without the model in the box; give the path of a model file, or a name "
            "on the Hugging Face hub, such as google/embeddinggemma-300m"
        )
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
    files = sorted(file.name for suffix in SUFFIXES for file in folder.glob(f"*{suffix}"))
    found = f"give the path of one of its files, such as {files[0]}" if files else "it holds no model"
    raise ModelFileError(f"{folder}: this is a folder, and no checkpoint; {found}")


def _convert(folder: Path) -> str:
    name = folder.absolute().name or "model"
    return f"embgemma convert {shlex.quote(str(folder))} -o {shlex.quote(f'{name}.int8.safetensors')}"
