"""What is asked of the Hugging Face hub, through huggingface_hub, and what its errors mean to a user."""

from __future__ import annotations

import hashlib
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..kernels.errors import BackendError, EmbgemmaError, HubError
from ..kernels.install import pip_install
from ..output_file import FULL
from .cache import size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..notices import Progress

_PATIENCE = 30.0  # seconds for the first answer
_LOOK = 0.2  # seconds between two looks at how much has come
_CLIENTS = ("httpx", "requests", "urllib3")  # what carries huggingface_hub, by release


class UnreachableError(HubError):
    """The hub does not answer, or shall not be asked."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its bytes, and its digest, which only large ones have."""

    size: int
    sha256: str | None


class Repository:
    """A repository of models on the hub; token is a token of it, None for the one that is logged in."""

    def __init__(self, name: str, token: bool | str | None = None) -> None:
        try:
            import huggingface_hub.constants
            import huggingface_hub.errors
            import huggingface_hub.file_download
            import huggingface_hub.hf_api
            import huggingface_hub.utils
        except ImportError as error:
            raise BackendError(
                f"{name} is not in the cache, and to download it takes the package huggingface_hub; run "
                f"`{pip_install('hub')}`, or give the path of a model file"
            ) from error
        self.name = name
        self._token = token
        self._hub: Any = huggingface_hub

    def commit(self, revision: str | None) -> str:
        """The commit that a branch, a tag or a commit names; None for the branch `main`."""
        with self._explained(revision):
            api = self._hub.HfApi(token=self._token)
            found = api.model_info(self.name, revision=revision, timeout=_PATIENCE).sha
            if not found:
                raise HubError(f"{self.name}: the hub names no commit of revision {revision}; try it again later")
            return str(found)

    def files(self, commit: str) -> dict[str, RemoteFile]:
        """All files at a commit, by path; none that would come to lie outside of a folder."""
        with self._explained(commit):
            tree = self._hub.HfApi(token=self._token).list_repo_tree(self.name, recursive=True, revision=commit)
            files = (each for each in tree if isinstance(each, self._hub.hf_api.RepoFile))
            return {
                each.path: RemoteFile(each.size, each.lfs.sha256 if each.lfs else None)
                for each in files
                if not each.path.startswith("/") and ".." not in each.path.split("/")
            }

    def fetch(
        self, commit: str, files: Mapping[str, RemoteFile], folder: Path, progress: Progress | None = None
    ) -> None:
        """Downloads files into a folder, from where each had stopped, and compares them with what the hub says.

        What huggingface_hub has in its own cache is copied.
        """
        with self._explained(commit), self._quiet(), _counting(folder, progress):
            for path, remote in files.items():
                if remote.sha256 is not None:
                    self._fetch_large(commit, path, remote, folder)
                    continue
                made = self._hub.hf_hub_download(self.name, path, revision=commit, local_dir=folder, token=self._token)
                if Path(made).stat().st_size != remote.size:
                    Path(made).unlink()
                    raise self._damaged(path)

    def _fetch_large(self, commit: str, path: str, remote: RemoteFile, folder: Path) -> None:
        """Downloads a file from where an earlier call stopped, which huggingface_hub forgets."""
        target, part = folder / path, folder / f".{remote.sha256}.part"
        if target.is_file():
            return
        cached = self._hub.try_to_load_from_cache(self.name, path, revision=commit)
        if isinstance(cached, str) and _sha256(Path(cached)) == remote.sha256:
            shutil.copyfile(cached, part)
        address = self._hub.hf_hub_url(self.name, path, revision=commit)
        headers = self._hub.utils.build_hf_headers(token=self._token)
        place = self._hub.get_hf_file_metadata(address, token=self._token).location
        if urlsplit(place).netloc != urlsplit(address).netloc:  # the store of large files, which takes no token
            headers.pop("authorization", None)
        with part.open("ab") as file:
            self._hub.file_download.http_get(
                place, file, resume_size=file.tell(), headers=headers, expected_size=remote.size
            )
        if _sha256(part) != remote.sha256:
            part.unlink()
            raise self._damaged(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)

    def _damaged(self, path: str) -> HubError:
        return HubError(f"{self.name}: {path} came damaged over the network; run it again")

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Hides the bars of huggingface_hub, one for each file, unless a user insists on them."""
        utils = self._hub.utils
        mine = not utils.are_progress_bars_disabled() and self._hub.constants.HF_HUB_DISABLE_PROGRESS_BARS is None
        if mine:
            utils.disable_progress_bars()
        try:
            yield
        finally:
            if mine:
                utils.enable_progress_bars()

    @contextmanager
    def _explained(self, revision: str | None) -> Iterator[None]:
        """Makes what huggingface_hub raises in the block one sentence that says what to do."""
        try:
            yield
        except EmbgemmaError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL):
                raise  # a file of ours cannot be written
            raise self._in_words(error, revision) from error

    def _in_words(self, error: Exception, revision: str | None) -> HubError:
        errors, name, hub = self._hub.errors, self.name, self._hub.constants.ENDPOINT
        if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if isinstance(error, errors.OfflineModeIsEnabled):
            return UnreachableError(
                f"{name}: HF_HUB_OFFLINE forbids to download it; unset that once, or give the path of a model file"
            )
        response = getattr(error, "response", None)
        if response is not None:
            return self._refusal(error, response.status_code, f"{hub}/{name}", revision)
        if type(error).__module__.startswith(_CLIENTS) or isinstance(error, ConnectionError | TimeoutError):
            return UnreachableError(
                f"{name}: {hub} cannot be reached ({_reason(error)}); connect and run it again, or give the path of a "
                "model file"
            )
        return HubError(f"{name} cannot be downloaded ({type(error).__name__}: {_reason(error)}); run it again")

    def _refusal(self, error: Exception, status: int, page: str, revision: str | None) -> HubError:
        """What the hub answers in place of what it is asked for."""
        errors, name, login = self._hub.errors, self.name, "run `hf auth login`, or set HF_TOKEN"
        if isinstance(error, errors.GatedRepoError) or status == HTTPStatus.FORBIDDEN:
            whose = "your account has no access" if status == HTTPStatus.FORBIDDEN else "no account is logged in"
            return HubError(
                f"{name} is gated, and {whose}: accept its terms at {page}, then {login} to a token of that account; "
                "or get its files in another way, and give their folder to `embgemma convert`"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return HubError(f"{name} has no revision {revision!r}; {page}/commits/main shows what there is")
        if isinstance(error, errors.RepositoryNotFoundError):
            return HubError(
                f"there is no {name} at {page}, or it is private: check the name; if it is private, {login}"
            )
        if status == HTTPStatus.UNAUTHORIZED:
            return HubError(f"{name}: the hub does not accept your token; {login} to a valid one, or unset it")
        return UnreachableError(f"{name}: the hub answers with an error (status {status}); try it again later")


@contextmanager
def _counting(folder: Path, progress: Progress | None) -> Iterator[None]:
    """Counts the progress up by what comes into a folder, whatever brings it there."""
    ended = threading.Event()

    def count(last: int) -> None:
        while progress is not None and not ended.wait(_LOOK):
            last, before = size(folder), last
            progress.advance(last - before)

    thread = threading.Thread(target=count, args=(size(folder),), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """The first line of an error, or its name."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".:")
