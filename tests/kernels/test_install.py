"""Hints to install something name what was installed: a folder, a file, an address, or the package of an index."""

from __future__ import annotations

from typing import Any

import pytest

from embgemma.kernels import install

ORIGINS: list[tuple[dict[str, Any], str]] = [
    ({}, "pip install 'embgemma[onnx]'"),
    ({"url": "file:///a%20b/c", "dir_info": {}}, "pip install '/a b/c[onnx]'"),
    ({"url": "file:///c", "dir_info": {"editable": True}}, "pip install -e '/c[onnx]'"),
    ({"url": "file:///c/x.whl", "archive_info": {}}, "pip install '/c/x.whl[onnx]'"),
    ({"url": "https://x.org/x.whl", "archive_info": {}}, "pip install 'embgemma[onnx] @ https://x.org/x.whl'"),
    ({"url": "https://x.org/x", "vcs_info": {"vcs": "git"}}, "pip install 'embgemma[onnx] @ git+https://x.org/x'"),
]


@pytest.mark.parametrize(("origin", "command"), ORIGINS)
def test_the_hint_fits_the_installation(origin: Any, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_origin", lambda: origin)
    assert install.pip_install("onnx") == command


def test_what_pip_noted_is_read() -> None:
    assert install.pip_install("onnx").startswith("pip install ")
