"""The cache: model files made of checkpoints of the hub, each with a record beside it that says what it is.

models/google--embeddinggemma-300m/COMMIT/int4.v6.safetensors  the model file, 6 being the version of the format
                                          int4.v6.json         its record
                                          checkpoint/          what is downloaded: until it is converted, or kept
locks/google--embeddinggemma-300m                              held by who makes or removes something of that name
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..find import check_hub_name
from ..kernels.errors import HubError, InputError
from ..kernels.model_file import FORMAT_VERSION
from ..kernels.system import take_lock
from ..notices import tell
from ..output_file import FULL, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..kernels.model_file import Scheme

HOME = "EMBGEMMA_HOME"
MAIN = "main"  # the branch that a name means
CHECKPOINT = "checkpoint"


def home() -> Path:
    """The folder of the cache: EMBGEMMA_HOME, or `embgemma` where the platform keeps caches."""
    if os.environ.get(HOME):
        place = Path(os.environ[HOME]).expanduser().absolute()
        if place.exists() and not place.is_dir():
            raise InputError(f"{HOME} is {place}, which is no folder; set it to a folder for models")
        return place
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME", ""))
            base = base if base.is_absolute() else Path.home() / ".cache"  # the standard ignores relative ones
    except RuntimeError as error:
        raise InputError(f"there is no home folder to keep models in; set {HOME} to a folder for them") from error
    return base / "embgemma"


@dataclass(frozen=True)
class Entry:
    """A model file in the cache.

    Attributes:
        name: of the repository.
        commit: what it was made of.
        scheme, format_version: what it is.
        calibrated, sliding_window: how it was made; see `convert`.
        made: seconds since 1970.
        revisions: as which revisions it was pulled, and when last.
    """

    name: str
    commit: str
    scheme: Scheme
    calibrated: bool
    sliding_window: int | None
    made: float
    revisions: dict[str, float]
    format_version: str = FORMAT_VERSION

    @property
    def path(self) -> Path:
        """The model file."""
        return self._beside("safetensors")

    @property
    def record(self) -> Path:
        """What says all this."""
        return self._beside("json")

    def _beside(self, suffix: str) -> Path:
        return folder_of(self.name) / self.commit / f"{self.scheme}.v{self.format_version}.{suffix}"

    def made_as(self, other: Entry) -> bool:
        """Whether both were made in the same way."""
        return (self.calibrated, self.sliding_window) == (other.calibrated, other.sliding_window)

    def last_used(self) -> float:
        """Seconds since 1970."""
        return self.record.stat().st_mtime

    def use(self) -> Entry:
        """Notes that it is used, where that can be written; gives itself."""
        with suppress(OSError):
            os.utime(self.record)
        return self

    def keep(self, revision: str) -> Entry:
        """Writes the record of a model file that was pulled as this revision."""
        self.revisions[revision] = time.time()
        with whole_file(self.record, force=True) as file:
            file.write(json.dumps(asdict(self)).encode())
        return self


def folder_of(name: str) -> Path:
    """The folder of everything that was made of a repository."""
    return home() / "models" / name.replace("/", "--")


def entries(name: str | None = None) -> list[Entry]:
    """The model files in the cache, or those of one repository, the oldest first."""
    records = (folder_of(name) if name else home() / "models").glob("*/*.json" if name else "*/*/*.json")
    found = [entry for entry in map(_read, records) if entry is not None and entry.path.is_file()]
    return sorted(found, key=lambda entry: (entry.name, entry.made))


def _read(record: Path) -> Entry | None:
    """The entry of a record; None for one that is damaged, or was written by another release."""
    try:
        entry = Entry(**json.loads(record.read_bytes()))
        return entry if entry.record == record and all(entry.revisions.values()) else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def find(name: str, scheme: str | None, revision: str | None) -> Entry | None:
    """The model file that is meant, if it is there; of no scheme, that of the scheme that was made first.

    So what others add to the cache later does not change which model a program gets.
    """
    wanted = revision or MAIN
    found = [
        entry
        for entry in entries(name)
        if entry.format_version == FORMAT_VERSION and (wanted in entry.revisions or wanted == entry.commit)
    ]
    scheme = scheme or next((entry.scheme for entry in found), None)
    alike = (entry for entry in found if entry.scheme == scheme)
    return max(alike, key=lambda entry: entry.revisions.get(wanted, 0), default=None)


def checkpoints() -> list[tuple[str, str, int]]:
    """The downloads in the cache, whole or not: name, commit, and bytes."""
    folders = sorted((home() / "models").glob(f"*/*/{CHECKPOINT}"))
    return [(path.parts[-3].replace("--", "/", 1), path.parts[-2], size(path)) for path in folders]


def size(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    total = 0
    for each in path.rglob("*") if path.is_dir() else [path]:
        with suppress(OSError):  # another process has just removed it
            total += each.lstat().st_size
    return total


def remove(name: str, scheme: str | None = None, revision: str | None = None) -> int:
    """Removes what is in the cache of a repository, of one scheme or CHECKPOINT, or one revision; gives its bytes."""
    check_hub_name(name)  # others, such as "..", would be other folders
    with writing(), locked(name, wait=False):
        doomed = [entry for entry in entries(name) if revision in (None, entry.commit, *entry.revisions)]
        folders = {entry.record.parent for entry in doomed} if revision else set(folder_of(name).glob("*"))
        paths = [path for entry in doomed if scheme in (None, entry.scheme) for path in (entry.path, entry.record)]
        paths += [folder / CHECKPOINT for folder in folders if scheme in (None, CHECKPOINT)]
        if scheme is revision is None:
            paths = [folder_of(name)]
        freed = sum(size(path) for path in paths if path.exists())
        if not freed:
            what = " ".join(filter(None, [name, scheme, revision]))
            raise InputError(f"{what}: nothing of that is in the cache; `embgemma cache` lists what is")
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for folder in (*folders, folder_of(name)):
            with suppress(OSError):  # something is left in it, or nothing of it
                folder.rmdir()
    return freed


@contextmanager
def locked(name: str, *, wait: bool = True) -> Iterator[None]:
    """Lets one block at a time work on what is made of a repository, of all threads and processes.

    The system releases the lock of a process that ends. On a file system without locks nobody waits, and the file of
    the last one stays.
    """
    path = home() / "locks" / name.replace("/", "--")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if not take_lock(file, wait=False):
            if not wait:
                raise InputError(f"{name} is being pulled now; wait until that ends, or end it")
            tell(f"{name} is being pulled already; waiting for that")
            take_lock(file, wait=True)
        yield


@contextmanager
def writing() -> Iterator[None]:
    """Makes errors of writing in the cache say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise HubError(
                f"{home()}: the disk is full; make room and run it again, which goes on where it stopped, or set "
                f"{HOME} to a folder on another disk"
            ) from error
        reason = f"{error.filename or home()}: {error.strerror or error}"
        raise InputError(f"cannot write in the cache ({reason}); set {HOME} to a folder that you may write") from error
