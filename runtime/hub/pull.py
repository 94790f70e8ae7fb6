"""Makes the model file of a checkpoint on the hub, once, and keeps it in the cache."""

from __future__ import annotations

import re
import shutil
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..find import check_hub_name
from ..inputs import check_choice
from ..kernels.errors import BackendError, CheckpointError, HubError, InputError, ModelFileError
from ..kernels.model_file import DEFAULT_SCHEME, SCHEMES, expected_tensors, read_model_file
from ..kernels.native import check_model, library_problem
from ..kernels.safetensors_file import shorten
from ..notices import Progress, tell
from . import parts
from .cache import CHECKPOINT, HOME, MAIN, Entry, find, home, locked, size, writing
from .download import Repository, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..kernels.model_file import Scheme
    from .parts import Files

_KEPT = ".kept"  # in a checkpoint that stays
_REVISION = re.compile(r"[\w./+@#-]{1,200}", re.ASCII)
_TOKEN = re.compile(r"[\w.-]{1,200}", re.ASCII)


def find_or_pull(
    name: str,
    scheme: Scheme | None = None,
    revision: str | None = None,
    *,
    local_files_only: bool = False,
    token: bool | str | None = None,
) -> Entry:
    """The model file of a name: from the cache, without a look at the network, or else made now; see `pull`."""
    _check_names(name, scheme, revision, token)
    found = find(name, scheme, revision)
    if found is not None:
        return found.use()
    folder = Path(name).parent
    if folder.is_dir():
        raise ModelFileError(
            f"{name}: there is no such file in the folder {folder}; if the model of that name on the Hugging Face hub "
            f"is meant, run `embgemma pull {name}` once"
        )
    if local_files_only:
        raise HubError(f"{name} is not in the cache as it is asked for, and local_files_only forbids to download it")
    scheme = scheme or DEFAULT_SCHEME
    with writing(), locked(name):
        found = find(name, scheme, revision)  # another may have made it
        if found is not None:
            return found.use()
        repository = Repository(name, token)
        tell(f"{name} is not in the cache: it is downloaded and converted to {scheme}, once")
        commit = repository.commit(revision)
        found = find(name, scheme, commit)
        if found is None:
            with Progress() as progress:
                wanted = _entry(name, commit, scheme)
                return _convert(wanted, _download(repository, wanted, progress), revision or MAIN, progress)
        return found.keep(revision or MAIN)


def pull(
    name: str,
    scheme: Scheme = DEFAULT_SCHEME,
    revision: str | None = None,
    *,
    calibrated: bool = True,
    sliding_window: int | None = None,
    keep_checkpoint: bool = False,
    token: bool | str | None = None,
    quiet: bool = False,
) -> Entry:
    """Makes the model file of what the hub has now, unless it is in the cache, whole and made in the same way.

    Args:
        name: of a repository on the hub, such as "google/embeddinggemma-300m".
        scheme, calibrated, sliding_window: see `convert`.
        revision: branch, tag or commit; None for the branch "main".
        keep_checkpoint: whether the checkpoint stays in the cache as well, for other schemes.
        token: for gated and private models; None for the one that is logged in.
        quiet: whether to say nothing.

    Raises:
        HubError: the hub does not give it, cannot be reached, or the disk has no room.
        CheckpointError: it is no checkpoint that can be converted.
        InputError: the cache cannot be written.
        BackendError: huggingface_hub is not installed.
    """
    _check_names(name, scheme, revision, token)
    calibrated = calibrated and scheme != "float32"
    with writing(), locked(name):
        known = find(name, scheme, revision)
        try:
            repository = Repository(name, token)
            commit = repository.commit(revision)
        except (UnreachableError, BackendError) as error:
            if known is None:
                raise
            tell(f"{error}; what is in the cache, commit {known.commit[:12]}, is taken")
            return known.use()
        wanted = _entry(name, commit, scheme, calibrated=calibrated, sliding_window=sliding_window)
        found = find(name, scheme, commit)
        whole = found is not None and found.made_as(wanted) and _is_whole(found.path)
        with Progress(quiet=quiet) as progress:
            if keep_checkpoint or not whole:
                checkpoint = _download(repository, wanted, progress, keep=keep_checkpoint)
            if found is None or not whole:
                return _convert(wanted, checkpoint, revision or MAIN, progress)
        return found.keep(revision or MAIN)


def _check_names(name: Any, scheme: Any, revision: Any, token: Any) -> None:
    """Raises InputError unless these may be asked of the hub."""
    check_hub_name(name)
    if scheme is not None:
        check_choice("scheme", scheme, SCHEMES)
    if revision is not None and (not isinstance(revision, str) or not _REVISION.fullmatch(revision)):
        raise InputError(f"revision={shorten(revision)}; expected the name of a branch or a tag, or a commit")
    if not isinstance(token, bool | None) and (not isinstance(token, str) or not _TOKEN.fullmatch(token)):
        # which must not be shown
        raise InputError("the token is none of the Hugging Face hub; expected letters and digits, such as hf_…")


def _entry(
    name: str, commit: str, scheme: Scheme, *, calibrated: bool = True, sliding_window: int | None = None
) -> Entry:
    return Entry(name, commit, scheme, calibrated, sliding_window, made=time.time(), revisions={})


def _is_whole(path: Path) -> bool:
    """Whether a model file is as it was written; says what is wrong."""
    try:
        read_model_file(path, every_byte=True)
        if library_problem() is None:
            check_model(path)
    except ModelFileError as error:
        tell(f"{error}; it is made anew")
        return False
    return True


def _download(repository: Repository, entry: Entry, progress: Progress, *, keep: bool = False) -> Path:
    """Downloads what a conversion needs; if that is interrupted, what has come stays, and the next call goes on."""
    checkpoint = entry.path.parent / CHECKPOINT
    asked_wrongly = checkpoint.exists() and entry.sliding_window is not None  # if it cannot be read so
    checkpoint.mkdir(parents=True, exist_ok=True)
    with _refusing(repository.name, checkpoint, keep=asked_wrongly):
        files = repository.files(entry.commit)
        for settings in parts.settings(repository.name, files, checkpoint):
            repository.fetch(entry.commit, settings, checkpoint)
        large = parts.weights_and_tokenizer(files, checkpoint)
        whole = sum(file.size for file in large.values())
        to_come = whole - min(whole, size(checkpoint))
        _check_room(entry, checkpoint, large, to_come)
    progress.begin(f"downloading {repository.name}", to_come, "B")
    repository.fetch(entry.commit, large, checkpoint, progress)
    if keep:
        (checkpoint / _KEPT).touch()
    return checkpoint


def _check_room(entry: Entry, checkpoint: Path, large: Files, to_come: int) -> None:
    """Raises HubError unless there is room for so many bytes to come, and for the model file; checks the config."""
    from ..export.checkpoint.checkpoint import read_config
    from ..export.scheme import planned_embedding, scheme_formats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the conversion says the same again
        config = read_config(checkpoint, sliding_window=entry.sliding_window)
    embedding = planned_embedding(config, entry.scheme)
    tensors = expected_tensors(config, scheme_formats(config, entry.scheme), embedding, 0)
    needed = to_come + sum(tensor.size_bytes for tensor in tensors.values())
    needed += sum(file.size for path, file in large.items() if "tokenizer" in path)  # the model file has one as well
    free = shutil.disk_usage(checkpoint).free
    if needed > free:
        raise HubError(
            f"{entry.name} takes {needed / 1e6:,.0f} MB of disk while it is converted, and {home()} has only "
            f"{free / 1e6:,.0f} MB left; make room, or set {HOME} to a folder on another disk"
        )


def _convert(entry: Entry, checkpoint: Path, revision: str, progress: Progress) -> Entry:
    """Converts, checks and notes what was pulled as this revision; removes the checkpoint unless it is to be kept."""
    from ..export.convert import convert

    with _refusing(entry.name, checkpoint):
        convert(
            checkpoint,
            entry.path,
            entry.scheme,
            calibrated=entry.calibrated,
            sliding_window=entry.sliding_window,
            force=True,
            origin=f"{entry.name}@{entry.commit}",
            progress=progress,
        )
    if not _is_whole(entry.path):
        raise HubError(f"{entry.path}: the disk does not keep what is written; set {HOME} to a folder on another disk")
    entry.keep(revision)
    if not (checkpoint / _KEPT).exists():
        shutil.rmtree(checkpoint)
    progress.wrote(entry.path)
    return entry


@contextmanager
def _refusing(name: str, checkpoint: Path, *, keep: bool = False) -> Iterator[None]:
    """Removes a checkpoint that cannot be converted, unless it is kept; errors name the repository, not its folder."""
    try:
        yield
    except CheckpointError as error:
        if not keep and not (checkpoint / _KEPT).exists():
            shutil.rmtree(checkpoint)
            with suppress(OSError):  # another scheme of it is there
                checkpoint.parent.rmdir()
                checkpoint.parent.parent.rmdir()
        raise CheckpointError(str(error).replace(str(checkpoint), name)) from error
