"""The command that installs this package once more, from where it came from."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import unquote, urlsplit

PACKAGE = "embgemma"


def pip_install(extra: str = "", *options: str) -> str:
    """`pip install …` of the folder, file, address or name that was installed, with one of its extras."""
    wanted = f"[{extra}]" if extra else ""
    origin = _origin()
    url = urlsplit(origin.get("url", ""))
    if url.scheme == "file":
        flags = ["-e"] if origin.get("dir_info", {}).get("editable") else []
        return shlex.join(["pip", "install", *options, *flags, unquote(url.path) + wanted])
    at = f" @ {origin['url']}" if url.scheme and "vcs_info" not in origin else ""
    if "vcs_info" in origin:
        at = f" @ {origin['vcs_info'].get('vcs', 'git')}+{origin['url']}"
    return shlex.join(["pip", "install", *options, f"{PACKAGE}{wanted}{at}"])


def _origin() -> dict[str, Any]:
    """What pip noted (PEP 610); empty if the package came from an index, or was not installed."""
    from importlib import metadata  # here, since few processes need it and all would wait for it

    try:
        noted = json.loads(metadata.distribution(PACKAGE).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}
