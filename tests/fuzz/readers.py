"""Asks the readers of model files, in Python and in C, about changed files: both must accept a file, or both refuse it.

    python -m tests.fuzz.readers --files 1000000 --seed 1

Seed and number make a file: a valid one, in which members of the header's JSON are dropped, doubled, renamed or given
hostile values, and bytes of the text, the data and the file are changed. Checksums are right again, or no change would
get far. A file on which the readers differ, or which ends the process, stays in the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np

from embgemma.export.synthetic import write_synthetic_model
from embgemma.export.tokenizer.read_table import read_table
from embgemma.export.tokenizer.restrict import Closure, restrict_table
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.fingerprint import fingerprint
from embgemma.kernels.model_file import CHECKSUM, ModelFile, Scheme, metadata_checksum, read_model_file
from embgemma.kernels.native import load_library
from embgemma.kernels.tokenizer_table import CHECKED_FROM, HEADER
from tests import processes, tiny
from tests.kernels.changed_file import SMALLEST, split

Tree: TypeAlias = list[list[Any]]  # members of a JSON object: key and value as JSON text, or a value as a Tree

MOST_MESSAGE = 700  # characters, of which at most 300 are not path

INTEGERS = [*(0, 1, 2, 3, 32, 33, 64, 65, 128, 255, 256, 257, 1 << 16, (1 << 16) + 64, 1 << 17, (1 << 17) + 1)]
INTEGERS += [
    *(1 << 22, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**39, 10**40)
]
NUMBERS = [
    *map(str, INTEGERS),
    "-0",
    "-1",
    "01",
    "+1",
    "1.",
    ".5",
    "1.0",
    "64.0",
    "1e2",
    "1E+2",
    "1e-6",
    "0.5",
    "1e400",
]
NUMBERS += ["1e-400", "-1e-6", "5e-324", "0." + "0" * 38 + "1", "0." + "0" * 39 + "1", "1" * 39 + ".5", "1e" + "0" * 50]
NUMBERS += ["9" * 4300, "9" * 4301, "NaN", "Infinity", "-Infinity", "0x10", "1_0", "1e", "1e+", "--1", "1 0"]
STRINGS = [
    '""',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\ude00\\ud83d"',
    '"\\ud83d\\ude00"',
    '"\\u0041"',
    '"\\x41"',
]
STRINGS += [
    '"\u00e9\u96e8"',
    '"\U0001f600"',
    '"\u202e"',
    '"\x01"',
    '"\x7f\u0085"',
    '"\\u001b[2J"',
    '"\\"',
    '"\\\\"',
    '"a',
]
STRINGS += ['"U8"', '"I8"', '"F32"', '"F16"', '"F64"', '"BF16"', '"query"', '"document"', '"4"', '"5"', '"embgemma"']
STRINGS += [f'"{"a" * 5000}"', '"head.scale"', '"final_norm"', '"layers.0.q_norm"', '"__metadata__"', '"window"']
OTHERS = [
    "true",
    "false",
    "null",
    "nul",
    "[]",
    "{}",
    "[0]",
    "[0,0]",
    "[1]",
    "[[0]]",
    "[256]",
    "[0,]",
    "[64,2]",
    "[0,64]",
]
OTHERS += [
    '{"a":1}',
    '{"a":"b","a":"b"}',
    '{"a":"b","\\u0061":"c"}',
    "[" * 3000,
    '{"a":' * 3000,
    "[]]",
    "",
    "\\",
    "'a'",
]
OTHERS += [f"[{','.join(['1'] * 5)}]", f"[{','.join(['0'] * 300)}]", f"[{','.join(['9' * 40] * 40)}]", "/**/", "\ufeff"]
MANY = [json.dumps({str(i): "" for i in range(count)}) for count in (255, 256, 257)]
HOSTILE = (NUMBERS, NUMBERS, STRINGS, OTHERS, OTHERS, MANY)


@cache
def bases() -> list[tuple[Tree, dict[str, str], bytes]]:
    """Valid files: the tree of the header without its metadata, the metadata, and the data."""
    config = SMALLEST
    table = tiny.tokenizer_table()
    pieces, merges = read_table(np.frombuffer(table, np.uint8))
    closure = Closure(pieces, merges)
    closure.add([*pieces.special.values(), *pieces.byte_ids, *range(0, pieces.count, 3)])
    part = restrict_table(pieces, merges, closure.kept).tobytes()
    parts: list[tuple[Scheme, bytes]] = [
        ("float32", b""),
        ("int8", b""),
        ("balanced", b""),
        ("balanced", table),
        ("int8", part),
        ("int4", b""),
    ]
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for i, (scheme, tokenizer) in enumerate(parts):
            path = Path(folder) / str(i)
            vocab = tiny.PIECES if tokenizer else config.vocab
            shape = type(config)(**{**vars(config), "vocab": vocab, "layers": 1 + i % 2, "full_attention_layers": (0,)})
            model = b"not read" if i else b""
            write_synthetic_model(path, shape, scheme, tokenizer_model=model, tokenizer_table=tokenizer)
            header, data = split(path)
            metadata = header.pop("__metadata__")
            metadata["default_prompt_name"] = '"query"' if i % 2 else "null"
            made.append((tree_of(header), metadata, data))
    return made


def tree_of(value: Any) -> Any:
    """The tree of a JSON object; other values as text."""
    if isinstance(value, dict):
        return [[json.dumps(key, ensure_ascii=False), tree_of(item)] for key, item in value.items()]
    return json.dumps(value, ensure_ascii=False)


def text_of(tree: Any) -> str:
    """The inverse of `tree_of`."""
    return "{" + ",".join(f"{key}:{text_of(value)}" for key, value in tree) + "}" if isinstance(tree, list) else tree


def change_tree(random: Random, tree: Tree) -> None:
    """Changes one member, somewhere."""
    while tree and isinstance(tree[i := random.randrange(len(tree))][1], list) and random.random() < 0.8:
        tree = tree[i][1]
    if not tree:
        tree.append(['"a"', random.choice(random.choice(HOSTILE))])
        return
    i, other, change = random.randrange(len(tree)), random.choice(tree), random.randrange(12)
    if change == 0:
        del tree[i]
    elif change in (1, 3):
        tree.insert(random.randrange(len(tree) + 1), tree.pop(i) if change == 3 else [*tree[i]])
    elif change == 2:
        tree.append([random.choice(STRINGS), random.choice(random.choice(HOSTILE))])
    elif change == 4:
        tree[i][0] = random.choice(STRINGS)
    elif change == 5:
        tree[i][1] = other[1]
    elif change == 6:
        tree[i][1] = f"[{random.choice(INTEGERS)},{random.choice(INTEGERS)}]"
    elif change <= 8 and isinstance(tree[i][1], str):
        tree[i][1] = change_text(random, tree[i][1])
    else:
        tree[i][1] = random.choice(random.choice(HOSTILE))


def change_text(random: Random, text: str) -> str:
    """Puts something hostile, or nothing, in place of a few characters."""
    begin = random.randrange(len(text) + 1)
    new = random.choice(
        (random.choice(random.choice(HOSTILE)), random.choice('0123456789eE+-.,:"[]{}\\ \n\t\x00é'), "")
    )
    return text[:begin] + new + text[begin + random.choice((0, 1, 1, 2, 5)) :]


def change_metadata(random: Random, metadata: dict[str, str]) -> None:
    """Changes the JSON or the text of one value, or the keys; the checksum is right again."""
    key = random.choice(("config", "config", "config", "prompts", "prompts", "default_prompt_name", *metadata))
    change = random.randrange(10)
    if key in ("config", "prompts") and change < 6:
        tree = tree_of(json.loads(metadata[key]))
        for _ in range(random.choice((1, 1, 1, 2))):
            change_tree(random, tree)
        metadata[key] = text_of(tree)
    elif change == 6:
        metadata[key] = random.choice(random.choice(HOSTILE))
    elif change < 8:
        metadata[key] = change_text(random, metadata[key])
    elif change == 8:
        metadata.update({f"x{i}": "" for i in range(random.choice((1, 1, 1, 1, 1, 1014, 1015, 1016)))})
    else:
        metadata.pop(key)
    metadata[CHECKSUM] = metadata_checksum(metadata)


def change_data(random: Random, tree: Tree, data: bytes) -> bytes:
    """Changes a few bytes of a tensor, above all of the tokenizer's table, whose checksum is right again."""
    places = {json.loads(key): json.loads(dict(entry)['"data_offsets"']) for key, entry in tree}
    name = random.choice([*places, *(["tokenizer.table"] * 20 if "tokenizer.table" in places else [])])
    changed = bytearray(data)
    begin, end = places[name]
    end = begin + HEADER.itemsize if name == "tokenizer.table" and random.random() < 0.9 else end
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(begin, max(end - 3, begin + 1)) // 4 * 4
        value = random.choice((random.choice(INTEGERS), random.randrange(1 << 32), 0x7F800000, 0xFFC00000, 0x7C00FE00))
        changed[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "little")
    if name == "tokenizer.table" and random.random() < 0.9:
        crc = zlib.crc32(changed[begin + CHECKED_FROM : begin + HEADER.itemsize])
        changed[begin + CHECKED_FROM - 4 : begin + CHECKED_FROM] = crc.to_bytes(4, "little")
    return bytes(changed[: len(data)])


def changed_file(seed: int, number: int) -> bytes:
    """The file of that number."""
    random = Random(seed << 40 | number)
    tree, metadata, data = random.choice(bases())
    metadata = {**metadata, CHECKSUM: metadata_checksum(metadata)}
    kind = random.randrange(10)
    if kind in (0, 1, 2, 3, 9):
        change_metadata(random, metadata)
    if kind in (4, 9):
        data = change_data(random, tree, data)
    whole: Tree = [['"__metadata__"', tree_of(metadata)], *([key, [*map(list, entry)]] for key, entry in tree)]
    if kind in (5, 6, 7):
        change_tree(random, whole)
    text = text_of(whole)
    text = change_text(random, text) if kind == 8 else text
    header = text.encode("utf-8", "surrogatepass")
    header += random.choice((b" ", b" ", b" ", b" ", b"\n", b"\0", b"{")) * (-(8 + len(header)) % 64)
    length = len(header) + (random.choice((-64, -1, 1, 64, 1 << 20, 1 << 63)) if random.random() < 0.01 else 0)
    content = (length % (1 << 64)).to_bytes(8, "little") + header + data
    if random.random() < 0.02:
        cut = random.randrange(len(content) + 1)
        content = random.choice((content[:cut], content + b"\0" * 64, content[:cut] + b"\xff" + content[cut + 1 :]))
    return content


def in_python(path: Path) -> ModelFile | str:
    """The model file, or the message of the error."""
    try:
        return read_model_file(path)
    except ModelFileError as error:
        return str(error)


Facts = tuple[int, dict[str, str], str]  # size of the embeddings, prompts, fingerprint of the default prompt


def facts_of(model: ModelFile) -> Facts:
    """What `in_c` must find."""
    config, name = model.config, model.default_prompt_name
    default = "" if name is None else model.prompts[name]
    return config.hidden, model.prompts, fingerprint(model.digest, config.hidden, config.max_tokens, default)


def in_c(path: Path) -> Facts | str:
    """The facts of the model file, or the message of the error."""
    library = load_library()
    c, slot = library.c, library.ffi.new("eg_model **")
    status = c.eg_model_open(bytes(path), slot)
    if status != c.EG_OK:
        assert status == c.EG_ERROR_MODEL, status
        return bytes(library.ffi.string(c.eg_error_message())).decode()
    names = [c.eg_model_prompt_name(slot[0], i) for i in range(c.eg_model_prompt_count(slot[0]))]
    prompts = {library.text(name): library.text(c.eg_model_prompt(slot[0], name)) for name in names}
    dim, name = c.eg_model_dim(slot[0]), library.ffi.new("char[]", c.EG_FINGERPRINT_BYTES)
    library.check(c.eg_model_fingerprint(slot[0], library.ffi.NULL, dim, name))
    facts = dim, prompts, library.text(name)
    c.eg_model_free(slot[0])
    return facts


def check_message(message: str) -> None:
    """Raises AssertionError unless it is one that a terminal can show."""
    assert message.isprintable(), message
    assert len(message) < MOST_MESSAGE, message


def check(path: Path) -> bool:
    """Whether both accept the file; raises AssertionError if they differ, or if a message is wrong."""
    by_python, by_c = in_python(path), in_c(path)
    for message in (by_python, by_c):
        if isinstance(message, str):
            check_message(message)
    assert isinstance(by_python, str) == isinstance(by_c, str), (str(by_python)[:MOST_MESSAGE], by_c)
    if isinstance(by_python, str):
        return False
    assert by_c == facts_of(by_python), (facts_of(by_python), by_c)
    return True


def readers_agree(seed: int, numbers: range, folder: Path) -> bool:
    """Checks the files of these numbers in a child process; the last one stays in the folder if anything is wrong."""
    path = folder / f"fuzz-{seed}.safetensors"

    def accepts(number: int) -> bool:
        path.write_bytes(changed_file(seed, number))
        return check(path)

    bases()
    load_library()  # the children share it, also when it is built anew meanwhile
    if not all_hold(seed, numbers, path, accepts):
        return False
    path.unlink()
    return True


def all_hold(seed: int, numbers: range, place: Path, accepts: Callable[[int], bool]) -> bool:
    """Whether `accepts` raises for none of the numbers, in a child process, and is true for one; says what is wrong."""

    def work() -> bool:
        accepted, number = 0, numbers.start
        try:
            for number in numbers:
                accepted += accepts(number)
        except BaseException:
            sys.stderr.write(f"seed {seed}, number {number}, {place}: {traceback.format_exc()}\n")
            return False
        sys.stdout.write(f"seed {seed}, to {numbers.stop}: {accepted} of {len(numbers)} accepted\n")
        sys.stdout.flush()
        return accepted > 0

    return processes.true_in_fork(work)


def run_command(description: str | None, check_some: Callable[[int, range, Path], bool], at_once: int) -> int:
    """Runs the command of a fuzzer, which checks `at_once` files in a process; 1 if something was found."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no more files are begun after them")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="for one file at a time")
    arguments = parser.parse_args()
    begin, last = time.monotonic(), arguments.first + arguments.files
    for first in range(arguments.first, last, at_once):
        if time.monotonic() - begin > arguments.seconds:
            last = first
            break
        if not check_some(arguments.seed, range(first, min(first + at_once, last)), arguments.folder):
            return 1
    sys.stdout.write(f"{last - arguments.first} files in {time.monotonic() - begin:.0f} s: nothing found\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(__doc__, readers_agree, at_once=5000))
