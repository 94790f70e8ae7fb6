"""Loads the C engine by cffi alone, and prints a digest of its vectors for every instruction set that runs here.

load_library.py LIBRARY MODEL_FILE [FOLDER_OF_CFFI]

It is run by the Python of another system too, which has no numpy there; both must print the same. On the way it
replaces the model file while it is open, as a program that updates a model does.
"""

from __future__ import annotations

import hashlib
import importlib
import mmap
import re
import shutil
import sys
import types
from pathlib import Path

sys.path[:0] = sys.argv[3:]
import cffi  # noqa: E402

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
TEXTS = ["the cat", "", "été 😀 of and to in is that\n\n\tfor it <h1> " * 3]
DIM = 128  # of the small model
package = types.ModuleType("kernels")  # without what its __init__.py imports: NumPy
package.__path__ = [str(KERNELS)]
sys.modules["kernels"] = package
system = importlib.import_module("kernels.system")


def declarations() -> str:
    text = (KERNELS / "embgemma.h").read_text("utf-8")
    return re.sub(r"/\* cffi: skip \*/.*?/\* cffi: end of skip \*/", "", text, flags=re.DOTALL)


def main(library: str, given: str) -> None:
    ffi = cffi.FFI()
    ffi.cdef(declarations())
    c = ffi.dlopen(str(Path(library).resolve()))
    path = Path(given).with_name("modèle 模型 🙂.safetensors")
    shutil.copyfile(given, path)
    model, context = ffi.new("eg_model **"), ffi.new("eg_context **")
    said = ffi.string
    assert c.eg_model_open(str(path).encode(), model) == c.EG_OK, said(c.eg_error_message()).decode()
    with open(path, "rb", opener=system.open_shared) as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    made = path.with_name("new.safetensors")
    made.write_bytes(b"another")
    system.replace(made, path)
    system.forget(mapping)
    assert path.read_bytes() == b"another"
    assert mapping[:] == Path(given).read_bytes()
    texts = [ffi.new("char[]", text.encode()) for text in TEXTS]
    for index in range(c.eg_isa_count()):
        if c.eg_isa_supported(index):
            assert c.eg_context_create(model[0], 2, c.eg_isa_name(index), context) == c.EG_OK
            out = ffi.new("float[]", DIM * len(texts))
            status = c.eg_embed(context[0], ffi.new("char *[]", texts), ffi.NULL, len(texts), ffi.NULL, DIM, out)
            assert status == c.EG_OK, said(c.eg_error_message()).decode()
            print(said(c.eg_isa_name(index)).decode(), hashlib.sha256(ffi.buffer(out)).hexdigest()[:16])
            c.eg_context_free(context[0])
    c.eg_model_free(model[0])
    assert c.eg_model_open(str(path.with_name("nothing")).encode(), model) == c.EG_ERROR_MODEL


main(*sys.argv[1:3])
