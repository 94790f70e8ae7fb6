"""The command `embgemma serve`: the model over HTTP, and a page that searches in an index."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..find import IN_THE_BOX, is_hub_name
from ..inputs import check_integer
from ..kernels.errors import BackendError, InputError, printable
from ..kernels.install import pip_install
from ..model import load
from ..notices import tell
from ..search import Index

if TYPE_CHECKING:
    import argparse

    from ..model import EmbeddingModel

DESCRIPTION = (
    "Serves a model over HTTP: OpenAI's /v1/embeddings and /v1/models, Ollama's /api/embed, /health, and /metrics for "
    "Prometheus. With --index, a page at / searches in it, and needs no MODEL. SIGTERM or Ctrl-C ends it, when what "
    "runs is finished."
)
KEY_VARIABLE = "EMBGEMMA_API_KEY"
MEGABYTE = 1 << 20
SQLITE = b"SQLite format 3\0"  # at the beginning of an index


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command, except the model and what runs it."""
    parser.add_argument("--index", metavar="FILE", help="an index made by `embgemma index`, to search in on a page")
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but warnings and errors")
    texts = parser.add_argument_group("texts")
    texts.add_argument("--name", help="of the model, for clients (default: that of its file, or on the hub)")
    texts.add_argument(
        "--default-prompt", metavar="NAME", help="prompt of the model where a request names none (default: no prompt)"
    )
    access = parser.add_argument_group("access")
    access.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    access.add_argument("--port", type=int, default=8080, help="default: %(default)s; 0 for any that is free")
    access.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"clients must send it; better set {KEY_VARIABLE}, since other users see the arguments of a command",
    )
    access.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name of this server, such as nas.lan"
    )
    access.add_argument(
        "--cors", action="append", default=[], metavar="ORIGIN", help="pages that may ask: https://example.org, or *"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-body", type=int, default=8, metavar="MB", help="of a request (default: %(default)s)")
    limits.add_argument("--max-texts", type=int, default=2048, metavar="N", help="of a request (default: %(default)s)")
    limits.add_argument(
        "--max-queue", type=int, default=1 << 18, metavar="TOKENS", help="that may wait (default: %(default)s)"
    )


def run_serve(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    try:
        from ..server.guard import Access
        from ..server.run import is_local, serve
        from ..server.service import Limits, Service
    except ImportError as error:
        raise BackendError(f"a server needs more packages ({error}): run `{pip_install('serve')}`") from error
    port = check_integer("port", arguments.port, 0, 65535)
    limits = Limits(
        MEGABYTE * check_integer("max_body", arguments.max_body, 1, 1024),
        check_integer("max_texts", arguments.max_texts, 1),
        check_integer("max_queue", arguments.max_queue, 1),
    )
    access = Access(
        hosts=frozenset(name.lower().rstrip(".") for name in [*map(_host, arguments.allow_host), arguments.host]),
        origins=frozenset(map(_origin, arguments.cors)),
        api_key=_key(arguments.api_key),
    )
    with ExitStack() as stack:
        model, index = _open(arguments, stack)
        service = Service(model, _name(arguments, model), arguments.default_prompt, limits)
        stack.callback(service.close)
        model.encode("a first text, so that no client waits for what happens once", show_progress_bar=False)
        if access.api_key is None and not is_local(arguments.host):
            tell(f"warning: whoever reaches {arguments.host} may ask: set {KEY_VARIABLE}, or give --api-key")

        def ready(address: str) -> None:
            if not arguments.quiet:
                tell(f"serving {service.name} at {address}/v1" + (f"; search at {address}/" if index else ""))

        serve(service, access, index, arguments.host, port, ready)
    return 0


def _open(arguments: argparse.Namespace, stack: ExitStack) -> tuple[EmbeddingModel, Index | None]:
    """The model, and the index if there is one; its model if no other is named."""
    engine = {"backend": arguments.backend, "threads": arguments.threads, "isa": arguments.isa}
    name = arguments.model
    if name is None and arguments.index is not None:
        index = stack.enter_context(Index.open(arguments.index, **engine))
        return index.model, index
    if name is None:
        tell(f"no model is named: {IN_THE_BOX} embeds, a small demonstration that comes with the package")
        name = IN_THE_BOX
    if _is_database(Path(name)):
        raise InputError(f"{name} is no model; if it is an index, give it by --index {name}")
    model = stack.enter_context(load(name, scheme=arguments.scheme, revision=arguments.revision, **engine))
    if arguments.index is None:
        return model, None
    return model, stack.enter_context(Index.open(arguments.index, model))


def _is_database(path: Path) -> bool:
    with suppress(OSError, ValueError), path.open("rb") as file:  # what is wrong with it is said when it is opened
        return file.read(len(SQLITE)) == SQLITE
    return False


def _name(arguments: argparse.Namespace, model: EmbeddingModel) -> str:
    """The name that clients give."""
    if arguments.name is not None:
        if not arguments.name or not arguments.name.isprintable():
            raise InputError("--name is empty, or has characters that cannot be shown")
        return str(arguments.name)
    if arguments.model is not None and is_hub_name(arguments.model) and not Path(arguments.model).exists():
        return str(arguments.model)
    return printable(model.path.stem)


def _host(name: str) -> str:
    """A name of the server; raises InputError for what no request names as one."""
    if not re.fullmatch(r"[^\s/:*]+", name):
        raise InputError(f"--allow-host {name!r} is no name; expected one such as nas.lan, without scheme and port")
    return name


def _origin(text: str) -> str:
    """An origin as browsers write it, or "*"; raises InputError for what is none."""
    origin = text.rstrip("/").lower()
    if origin not in ("*", "null") and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/*]+", origin):
        raise InputError(f"--cors {text!r} is no origin; expected one such as https://example.org, or *")
    return origin


def _key(given: str | None) -> str | None:
    """The key that clients must send; its value never is in a message."""
    key = os.environ.get(KEY_VARIABLE) if given is None else given
    if key is None:
        return None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"the API key is empty, or has characters other than those of ASCII: see {KEY_VARIABLE}")
    return key
