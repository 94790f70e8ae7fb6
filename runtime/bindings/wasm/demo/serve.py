"""Serves a folder to this machine alone, with the headers that threads in a page need; makes the demo first, if asked.

python serve.py FOLDER --package PACKAGE

PACKAGE is the folder of the npm package. FOLDER is made anew: the demo, the package and the model in the box, for any
static host.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DEMO = Path(__file__).parent
MODEL = Path(__file__).parents[3] / "models" / "embgemma-tiny.safetensors"
PORT = 8017
LIST = "files.js"  # what the service worker keeps
PACKAGE_FILES = ("*.js", "*.wasm")
NOT_KEPT = {MODEL.suffix}  # by the service worker: the package keeps models
TYPES = {".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
# A page whose Workers may share memory, and so have threads.
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_site(package: Path, folder: Path) -> None:
    """Puts the demo, the package and the model into a folder that holds nothing else."""
    if folder.exists() and not (folder / LIST).exists():
        raise ValueError(f"{folder} is no demo that was made here: name another folder, or remove it")
    if not (package / "index.js").is_file():
        raise ValueError(f"{package} holds no package: make it by `make wasm`, and name its folder")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    examples = folder / "examples"
    names = sorted(path.name for path in examples.iterdir())
    (examples / "index.json").write_text(json.dumps(names), "utf-8")
    for name, paths in (
        ("embgemma", [path for pattern in PACKAGE_FILES for path in package.glob(pattern)]),
        ("models", [MODEL]),
    ):
        (folder / name).mkdir()
        for path in paths:
            shutil.copy(path, folder / name)
    _list_files(folder)


def _list_files(folder: Path) -> None:
    """Writes the list: what the service worker keeps, and a digest that changes with it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix not in NOT_KEPT)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    names = ["./", *(path.relative_to(folder).as_posix() for path in files if path.name != "service-worker.js")]
    text = f"self.VERSION = {json.dumps(digest)};\nself.FILES = {json.dumps(names, indent=2)};\n"
    (folder / LIST).write_text(text, "utf-8")


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def __init__(self, *arguments: object, isolated: bool, directory: Path) -> None:
        self.isolated = isolated
        super().__init__(*arguments, directory=str(directory))  # type: ignore[arg-type]

    def end_headers(self) -> None:
        """Adds headers of our own."""
        self.send_header("Cache-Control", "no-cache")
        for name, value in ISOLATION.items() if self.isolated else ():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name in the base class
        """Says nothing of requests that were answered."""


def _fail(message: str) -> int:
    sys.stderr.write(f"{message}\n")
    return 1


def main() -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="to serve")
    parser.add_argument("--package", type=Path, help="folder of the npm package: makes the demo in the folder first")
    parser.add_argument("--port", type=int, default=PORT, help=f"of 127.0.0.1; 0 for any that is free (default {PORT})")
    parser.add_argument("--plain", action="store_true", help="send no isolation headers, as many static hosts do")
    arguments = parser.parse_args()
    handler = partial(Handler, isolated=not arguments.plain, directory=arguments.folder)
    try:
        if arguments.package is not None:
            make_site(arguments.package, arguments.folder)
        elif not arguments.folder.is_dir():
            raise ValueError(f"{arguments.folder} is no folder; give --package as well to make the demo there")
    except (ValueError, OSError) as error:
        return _fail(str(error))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", arguments.port), handler)
    except OverflowError:
        return _fail(f"there is no port {arguments.port}; give one from 0 to 65535 with --port")
    except OSError as error:
        return _fail(f"cannot serve on port {arguments.port} ({error.strerror}); give another with --port")
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}/ serves {arguments.folder}; Ctrl+C ends it\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
