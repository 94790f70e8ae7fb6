"""Converts changed checkpoints: each gives one sentence of an error, or a model file that has SentencePiece's tokens.

    python -m tests.fuzz.checkpoints --files 10000 --seed 1

Seed and number make a checkpoint: a valid one, of which one JSON file, the tokenizer or the header of the weights is
changed. One that gives anything else, or ends the process, stays in the folder.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

from embgemma.export.convert import convert
from embgemma.kernels.errors import EmbgemmaError
from embgemma.kernels.model_file import read_model_file
from embgemma.kernels.native_tokenizer import NativeTokenizer
from embgemma.tokenizer import Tokenizer
from tests import tiny
from tests.fuzz.readers import all_hold, change_text, change_tree, check_message, run_command, text_of, tree_of

TEXTS = ["", "the of and", "  to\n\n in\t is ", "<h1>é雨 😀▁▁▁ that", "e1234 \u0301", "a" * 50, "[multimodal]<unused0>"]
TOKENIZER_MODEL, TOKENIZER_JSON, WEIGHTS = "tokenizer.model", "tokenizer.json", "model.safetensors"


@cache
def base() -> dict[str, bytes]:
    """The files of a valid checkpoint."""
    with tempfile.TemporaryDirectory() as parent:
        folder = tiny.write_checkpoint(
            Path(parent) / "checkpoint", replace(tiny.CONFIG, layers=1, full_attention_layers=(0,))
        )
        tiny.write_json(folder / TOKENIZER_JSON, tiny.tokenizer_json())
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change_json(random: Random, content: bytes) -> bytes:
    """Changes members of a JSON file, or its text."""
    value = json.loads(content)
    if isinstance(value, dict) and random.random() < 0.8:
        tree = tree_of(value)
        change_tree(random, tree)
        return text_of(tree).encode("utf-8", "surrogatepass")
    return change_text(random, content.decode()).encode("utf-8", "surrogatepass")


def change_bytes(random: Random, content: bytes) -> bytes:
    """Changes a few bytes, moves a stretch, or cuts the end off."""
    changed, at = bytearray(content), random.randrange(len(content))
    kind = random.randrange(6)
    if kind == 0:
        del changed[at:]
    elif kind == 1:
        changed[at:at] = changed[(begin := random.randrange(len(content))) : begin + random.choice((1, 8, 64))]
    else:
        for _ in range(random.choice((1, 1, 2, 8))):
            changed[random.randrange(len(content))] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
    return bytes(changed)


def changed_checkpoint(seed: int, number: int) -> dict[str, bytes]:
    """The files of the checkpoint of that number."""
    random = Random(seed << 40 | number)
    files = dict(base())
    if random.random() < 0.3:
        del files[TOKENIZER_MODEL]
    name = random.choice([*files, *([TOKENIZER_MODEL] * 4 if TOKENIZER_MODEL in files else [TOKENIZER_JSON] * 4)])
    if name.endswith(".safetensors"):
        end = 8 + int.from_bytes(files[name][:8], "little")
        header = change_json(random, files[name][8:end])
        files[name] = len(header).to_bytes(8, "little") + header + files[name][end:]
    else:
        files[name] = (change_json if name.endswith(".json") else change_bytes)(random, files[name])
    return files


def check(folder: Path, output: Path) -> bool:
    """Whether the checkpoint converts; raises AssertionError for a wrong message or other tokens."""
    try:
        convert(folder, output, "int8", calibrated=False, force=True)
    except EmbgemmaError as error:
        check_message(str(error))
        return False
    file = read_model_file(output)
    assert file.tokenizer_table is not None
    assert file.tokenizer_model is not None
    ends = file.config.bos_id, file.config.eos_id
    found = NativeTokenizer(file.tokenizer_table, *ends).encode_batch(TEXTS, 1000).split()
    assert found == Tokenizer(bytes(file.tokenizer_model), *ends).encode_batch(TEXTS, 1000).split()
    return True


def checkpoints_convert_or_not(seed: int, numbers: range, folder: Path) -> bool:
    """Checks the checkpoints of these numbers in a child process; the last one stays if anything is wrong."""
    place = folder / f"fuzz-checkpoint-{seed}"

    def accepts(number: int) -> bool:
        shutil.rmtree(place, ignore_errors=True)
        for name, content in changed_checkpoint(seed, number).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        return check(place, place / "made.safetensors")

    base()
    if not all_hold(seed, numbers, place, accepts):
        return False
    shutil.rmtree(place)
    return True


if __name__ == "__main__":
    sys.exit(run_command(__doc__, checkpoints_convert_or_not, at_once=500))
