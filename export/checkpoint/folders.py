"""Where the parts of a checkpoint lie: in its folder, or, with a LoRA adapter, some of them in that of its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...kernels.errors import CheckpointError
from ...kernels.safetensors_file import shorten
from ...notices import warn
from ..settings.json_file import is_there, read_object
from ..tokenizer.tokenizer_files import TOKENIZER_FILES
from .modules import MODULES, Modules, find_modules

ADAPTER_CONFIG = "adapter_config.json"
_BASE = "base_model_name_or_path"


@dataclass(frozen=True)
class Folders:
    """Where the parts of a checkpoint lie.

    Attributes:
        root: modules.json and prompts.
        modules: what modules.json lists.
        encoder: config.json and the weights of the encoder.
        tokenizer: the tokenizer.
        adapter: the adapter that is added to the weights; None if there is none.
    """

    root: Path
    modules: Modules
    encoder: Path
    tokenizer: Path
    adapter: Path | None = None


def find_folders(folder: Path, base: Path | None) -> Folders:
    """The folders of the checkpoint in `folder`; base is that of the model that its adapter was trained on.

    Without modules.json beside it, an adapter replaces nothing but weights: all else is that of its base. Raises
    CheckpointError where a part is missing.
    """
    if is_there(folder / MODULES) or not is_there(folder / ADAPTER_CONFIG):
        root, modules = folder, find_modules(folder)
        adapter = modules.encoder
        if not is_there(adapter / ADAPTER_CONFIG):
            if base is not None:
                raise CheckpointError(f"{adapter}: there is no {ADAPTER_CONFIG}, so it takes no base; leave base out")
            return Folders(root, modules, adapter, adapter)
        encoder = _base_of(adapter, base, [adapter])
        if is_there(encoder / MODULES):
            encoder = find_modules(encoder).encoder
    else:
        adapter, root = folder, _base_of(folder, base, [folder, folder.parent])
        modules = find_modules(root)
        encoder = modules.encoder
    if encoder != adapter and is_there(encoder / ADAPTER_CONFIG):
        raise CheckpointError(f"{encoder}: the base has an adapter itself; merge that into its weights first")
    tokenizer = adapter if any(is_there(adapter / name) for name in TOKENIZER_FILES) else encoder
    return Folders(root, modules, encoder, tokenizer, adapter)


def _base_of(adapter: Path, base: Path | None, others: list[Path]) -> Path:
    """The folder of an adapter's base: as given, else as its config names it, else the first of others with weights."""
    name = read_object(adapter / ADAPTER_CONFIG).get(_BASE)
    if base is None and isinstance(name, str) and name and "\0" not in name and Path(name).is_dir():
        base = Path(name)
    if base is not None:
        if not base.is_dir():
            raise CheckpointError(f"{base}: there is no such folder; expected that of the adapter's base")
        return base
    for folder in others:
        if any(folder.glob("model*.safetensors*")) or (folder != adapter and (folder / MODULES).is_file()):
            if folder == adapter:
                warn(f"{adapter}: the adapter is added to the weights beside it; remove it if they have it already")
            return folder
    raise CheckpointError(
        f"{adapter / ADAPTER_CONFIG}: {_BASE} is {shorten(name)}, and there is no such folder here; give the folder of "
        "that model with base=FOLDER (--base FOLDER)"
    )
