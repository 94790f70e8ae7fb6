"""The runtimes that can be measured, one module each.

A peer's `prepare` makes its model files once; `open_variant` then opens one of them in a process of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ..harness.workload import Ids

Vectors: TypeAlias = npt.NDArray[np.float32]  # (texts, hidden), unit length

OURS = "ours"

PEERS = ("onnxruntime", "openvino", "sentence-transformers", "llama-cpp", "embgemma-onnx")  # modules, with _ for -


@dataclass(frozen=True)
class Variant:
    """One runtime at one precision: all that a fresh process needs to open it.

    Attributes:
        peer: OURS or one of PEERS.
        name: precision, as the report shows it.
        path: model file or folder.
        options: settings of that peer.
        environment: variables that must be set before the process starts.
    """

    peer: str
    name: str
    path: Path
    options: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in messages."""
        return f"{self.peer} {self.name}"


# A model that is loaded and ready: unit vectors (texts, hidden) of texts of equal length (texts, tokens).
Encoder: TypeAlias = Callable[[Ids], Vectors]


class Peer(Protocol):
    """What every module of a runtime provides; ours has no PACKAGES and no `prepare`."""

    # Packages that it needs, as pip names them, and the module that each installs.
    PACKAGES: dict[str, str]

    def prepare(self, checkpoint: Path, folder: Path) -> list[Variant]:
        """Its best formats of a checkpoint; files that it makes are kept in `folder` and found there again."""

    def open_variant(self, variant: Variant, threads: int | None) -> Encoder:
        """Loads one variant; threads None leaves the choice to the runtime."""


def peer_module(name: str) -> Peer:
    """The module of a runtime, imported now."""
    return cast(Peer, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))
