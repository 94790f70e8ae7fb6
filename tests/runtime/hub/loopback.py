"""A hub on this machine: the part of the Hugging Face hub's protocol that a download of models takes."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = 100_000  # bytes from which a file is in LFS and has a digest


@dataclass
class Loopback:
    """What it serves, how it fails, and what it was asked for.

    Attributes:
        repositories: folder of each commit, by name.
        revisions: commits by branch and tag.
        refused: status and error code for what begins with a path.
        also_listed: paths of files that it lists besides those in the folder.
        damaged: files that are served with another byte.
        asked: the method and path of every request.
        ranges: the first byte of every request for a part of a file.
    """

    url: str = ""
    repositories: dict[str, dict[str, Path]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    also_listed: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    ranges: list[int] = field(default_factory=list)

    def add(self, name: str, folder: Path, commit: str, *revisions: str) -> None:
        """Serves a folder."""
        self.repositories.setdefault(name, {})[commit] = folder
        self.revisions.update(dict.fromkeys(revisions, commit))

    def fetched(self) -> list[str]:
        """The files that were downloaded, in order."""
        return [asked.partition("/resolve/")[2].partition("/")[2] for asked in self.asked if asked.startswith("GET /o")]

    def answer(self, path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        for start, (status, code) in self.refused.items():
            if path.startswith(start) and token != "Bearer hf_good":
                return status, {"X-Error-Code": code} if code else {}, b""
        api = path.startswith("/api/models/")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        name, what, revision, rest = "/".join(parts[:2]), parts[2:3], "/".join(parts[3:4]) or "main", parts[4:]
        if name not in self.repositories:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commit = self.revisions.get(unquote(revision), unquote(revision))
        folder = self.repositories[name].get(commit)
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if api and what != ["tree"]:
            return 200, {}, json.dumps({"id": name, "sha": commit}).encode()
        if api:
            files = (file for file in sorted(folder.rglob("*")) if file.is_file())
            listed = [_listed(file, folder) for file in files]
            listed += [{"type": "file", "path": path, "size": 2, "oid": "0" * 40} for path in self.also_listed]
            return 200, {}, json.dumps(listed).encode()
        content = (folder / "/".join(rest)).read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        if "/".join(rest) in self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return 200, headers, content


def _listed(file: Path, folder: Path) -> dict[str, Any]:
    content = file.read_bytes()
    entry = {"type": "file", "path": file.relative_to(folder).as_posix(), "size": len(content), "oid": "0" * 40}
    if len(content) >= LARGE:
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return entry


@contextmanager
def serve() -> Iterator[Loopback]:
    """A hub that listens while the block runs."""
    hub = Loopback()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            hub.asked.append(f"{self.command} {path}")
            status, headers, body = hub.answer(path, self.headers["Authorization"])
            start = int((self.headers["Range"] or "bytes=0-")[len("bytes=") :].partition("-")[0])
            hub.ranges += [start] if start else []
            self.send_response(206 if start else status)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            for header in ({**headers, "Content-Length": str(len(body) - start)}).items():
                self.send_header(*header)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[start:])

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()
