"""Which files of a repository a conversion needs: those with settings, and then the weights and the tokenizer."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..kernels.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .download import RemoteFile

    Files = Mapping[str, RemoteFile]

_MODULES, _CONFIG, _ADAPTER = "modules.json", "config.json", "adapter_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_WEIGHTS = "model.safetensors"
_MOST_MODULES = 64  # that are looked at; the exporter takes no more than 32
_MOST_SETTINGS = 4 << 20  # bytes of a file with settings; Gemma's tokenizer_config.json has 1.2 MB


def settings(name: str, files: Files, checkpoint: Path) -> Iterator[Files]:
    """The files with settings, in two parts: those at the root, which say which folders have the others.

    Raises CheckpointError if the repository cannot be a checkpoint.
    """
    yield _settings_in(".", files)
    folders = _folders(checkpoint)
    for folder in folders[1:]:
        yield _settings_in(folder, files)
    for folder in (".", _encoder(folders)):
        if _join(folder, _ADAPTER) in files:
            raise CheckpointError(
                f"{name} is a LoRA adapter; download it and the model that it was trained on, and give both to "
                "`embgemma convert FOLDER --base FOLDER`"
            )
    for needed in (_CONFIG, _WEIGHTS):
        path = _join(_encoder(folders), needed)
        if not {path, f"{path}.index.json"} & files.keys():
            raise CheckpointError(
                f"{name} has no {path}, so it is no checkpoint that can be converted; give the name of the model that "
                "it was made of"
            )


def weights_and_tokenizer(files: Files, checkpoint: Path) -> Files:
    """The other files."""
    folders = _folders(checkpoint)
    wanted = {_join(folder, name) for folder in (".", _encoder(folders)) for name in _TOKENIZERS}
    for folder in folders if len(folders) == 1 else folders[1:]:
        path = _join(folder, _WEIGHTS)
        wanted |= {path} if path in files else _shards(checkpoint / f"{path}.index.json", folder)
    return {path: files[path] for path in sorted(wanted & files.keys())}


def _settings_in(folder: str, files: Files) -> Files:
    def has_settings(path: PurePosixPath) -> bool:
        return str(path.parent) == folder and path.suffix == ".json" and path.name not in _TOKENIZERS

    return {
        path: file for path, file in files.items() if has_settings(PurePosixPath(path)) and file.size <= _MOST_SETTINGS
    }


def _folders(checkpoint: Path) -> list[str]:
    """The root, and the folders of the modules, the encoder's first; what is wrong there is said by the exporter."""
    try:
        modules = json.loads((checkpoint / _MODULES).read_bytes())
        return [".", *(str(PurePosixPath(module["path"])) for module in modules[:_MOST_MODULES])]
    except (OSError, ValueError, TypeError, KeyError):
        return ["."]


def _encoder(folders: list[str]) -> str:
    return folders[:2][-1]


def _join(folder: str, name: str) -> str:
    return str(PurePosixPath(folder) / name)


def _shards(index: Path, folder: str) -> set[str]:
    """The files that an index lists, if it is one."""
    try:
        return {_join(folder, str(shard)) for shard in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()
