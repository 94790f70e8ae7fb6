"""The two readers of model files, in Python and in C, accept the same files: valid ones with a piece of the header
replaced, and the checksum made right again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.layout import Tensor
from embgemma.kernels.model_file import CHECKSUM, metadata_checksum, read_model_file
from embgemma.kernels.native import library_problem, load_library
from embgemma.kernels.safetensors_file import LENGTH_BYTES
from tests import tiny
from tests.kernels.changed_file import write_changed

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))

CHANGES = 400
PIECES = [b"0", b"1", b"-1", b"1.0", b"e5", b"64", b"null", b"true", b'""', b"[]", b"{}", b",", b":", b'"', b"\\"]
PIECES += [b"\\u0041", b" ", b"\n", b'"U8"', b"\xc3\xa9", b"\xff", b"layers.1"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """Header, and data, of a valid file."""
    path = tmp_path_factory.mktemp("readers") / "model.safetensors"
    write_synthetic_model(path, tiny.CONFIG, "mixed")
    data = path.read_bytes()
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    return data[LENGTH_BYTES:start].rstrip(b" "), data[start:]


def change(random_: random.Random, text: bytes) -> bytes:
    """Puts one of PIECES into the text, in place of up to five bytes."""
    begin = random_.randrange(len(text))
    return text[:begin] + random_.choice(PIECES) + text[begin + random_.choice((0, 1, 1, 2, 5)) :]


def changed_header(random_: random.Random, header: bytes) -> bytes:
    """A change somewhere, or in a value of the metadata; the latter with its checksum."""
    if random_.random() < 0.5:
        return change(random_, header)
    parsed = json.loads(header)
    metadata = parsed["__metadata__"]
    key = random_.choice(("config", "config", "prompts", "default_prompt_name", "scheme", "producer"))
    metadata[key] = change(random_, metadata[key].encode()).decode(errors="replace")
    metadata[CHECKSUM] = metadata_checksum(metadata)
    return json.dumps(parsed).encode()


def accepted_by_python(path: Path) -> str | None:
    """None if it is; else the message."""
    try:
        read_model_file(path)
    except ModelFileError as error:
        return str(error)
    return None


def accepted_by_c(path: Path) -> str | None:
    """None if it is; else the message."""
    library = load_library()
    slot = library.ffi.new("eg_model **")
    try:
        library.check(library.c.eg_model_open(bytes(path), slot))
    except ModelFileError as error:
        return str(error)
    library.c.eg_model_free(slot[0])
    return None


WRONG_TENSORS: dict[str, Tensor | None] = {
    "final_norm": None,
    "layers.0.q_norm": np.ones(63, np.float32),
    "layers.2.o.weight": np.ones((8, 48, 16, 4), np.float16),
    "head.weight": np.ones((7, 16, 16, 4), np.uint8),
    "head.scale": None,
    "layers.1.down.codebook": None,
    "embedding.weight": np.ones((895, 66), np.uint8),
    "embedding.scale": np.ones((896, 7), np.float16),
}


@pytest.mark.parametrize("name", WRONG_TENSORS)
def test_wrong_tensors_are_refused_by_both(tmp_path: Path, name: str) -> None:
    good, wrong = tmp_path / "good.safetensors", tmp_path / "wrong.safetensors"
    write_synthetic_model(good, tiny.CONFIG, "mixed")
    write_changed(wrong, read_model_file(good), {name: WRONG_TENSORS[name]})
    for message in (accepted_by_python(wrong), accepted_by_c(wrong)):
        assert message is not None
        assert name.partition(".")[0] in message


def test_readers_agree(parts: tuple[bytes, bytes], tmp_path: Path) -> None:
    header, data = parts
    random_ = random.Random(1)
    path = tmp_path / "changed.safetensors"
    accepted = 0
    for _ in range(CHANGES):
        text = changed_header(random_, header)
        text += b" " * (-(LENGTH_BYTES + len(text)) % 64)
        path.write_bytes(len(text).to_bytes(LENGTH_BYTES, "little") + text + data)
        by_python, by_c = accepted_by_python(path), accepted_by_c(path)
        assert (by_python is None) == (by_c is None), (text, by_python, by_c)
        accepted += by_python is None
    assert 0 < accepted < CHANGES
