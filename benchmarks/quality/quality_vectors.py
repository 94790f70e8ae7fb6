"""Vectors of many texts by one runtime, computed once and kept in a cache by model file, runtime and texts."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...output_file import whole_file
from ..compare.compare import ISA_VARIABLE
from ..harness.cache import VECTORS_FOLDER, recent_folder
from ..harness.machine import read_environment
from ..harness.workload import Ids
from ..peers import OURS, Variant, Vectors, peer_module
from ..peers.process import Process

# Texts in one call. A peer gets each text alone, as on a device: in a batch, some peers give it another vector (ONNX
# Runtime's int8 has one scale for all activations of a call). Ours is the same to the bit, so a batch only saves time.
OUR_BATCH = 32
PEER_BATCH = 1

MOST_FORMATS = 64  # whose vectors are kept, some MB each
_DIGITS = 16  # of a hash in a file's name


def embed(variant: Variant, lists: Sequence[list[Ids]], cache: Path, threads: int | None) -> list[Vectors]:
    """Unit vectors (texts, hidden) of each list of texts, given as token ids (tokens,); from the cache if it has them.

    The cache knows the version of embgemma but not its build: use another folder after a change of the kernels.
    """
    folder = recent_folder(cache / VECTORS_FOLDER / fingerprint(variant), "*", MOST_FORMATS)
    paths = [folder / f"{_digest(ids.tobytes() for ids in texts)}.npy" for texts in lists]
    missing = {path: texts for path, texts in zip(paths, lists, strict=True) if not path.exists()}
    if missing:
        with Process(variant, threads) as process:
            for path, texts in missing.items():
                with whole_file(path, force=True) as file:
                    np.save(file, _encode(process, texts))
    return [np.load(path) for path in paths]


def fingerprint(variant: Variant) -> str:
    """A name made of all that its vectors depend on: files, options, CPU and versions of the packages."""
    packages = () if variant.peer == OURS else tuple(peer_module(variant.peer).PACKAGES)
    environment = read_environment(packages)
    facts = [variant.peer, variant.options, variant.environment, environment.cpu, os.environ.get(ISA_VARIABLE)]
    facts.append(environment.versions)
    parts = [repr(facts).encode()]
    for path in files(variant):
        parts += [path.name.encode(), hashlib.sha256(path.read_bytes()).digest()]
    return f"{variant.key.replace(' ', '-')}-{_digest(parts)}"


def files(variant: Variant) -> list[Path]:
    """What a program would ship: our model file, or all files in the folder of a peer's model."""
    return [variant.path] if variant.peer == OURS else sorted(variant.path.parent.iterdir())


def size(variant: Variant) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in files(variant))


def _encode(process: Process, texts: Sequence[Ids]) -> Vectors:
    """Embeds equal texts once, and texts of equal length together."""
    by_length: dict[int, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, ids in enumerate(texts):
        by_length[len(ids)][ids.tobytes()].append(number)
    most = OUR_BATCH if process.variant.peer == OURS else PEER_BATCH
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    for distinct in by_length.values():
        places = list(distinct.values())
        for start in range(0, len(places), most):
            part = places[start : start + most]
            found = process.ask.encode(np.stack([texts[numbers[0]] for numbers in part]))
            vectors.update((number, vector) for numbers, vector in zip(part, found, strict=True) for number in numbers)
    return np.stack([vectors[number] for number in range(len(texts))])


def _digest(parts: Iterable[bytes]) -> str:
    """A short hash; the length of each part is hashed too, so that parts cannot run together."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:_DIGITS]
