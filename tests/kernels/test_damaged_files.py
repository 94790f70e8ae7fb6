"""The two readers of model files, in Python and in C, refuse the same cut, corrupt and hostile files with a reason."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embgemma.export.scheme import planned_embedding
from embgemma.kernels.embedding_rows import LEVELS, LOWEST, RATE_BITS, RATES, WORD_BITS, row_bytes
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.model_file import FORMAT_VERSION, read_model_file
from embgemma.kernels.native import check_model, library_problem, load_library
from embgemma.kernels.safetensors_file import KINDS, LENGTH_BYTES
from tests.kernels.changed_file import SMALLEST, as_text, join, split, write_smallest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kernels.changed_file import Header

    Reader = Callable[[Path], None]

TABLE = planned_embedding(SMALLEST, "balanced").size_bytes  # of its rows, which come first
SIZES = {"F32": 4, "F16": 2, "I8": 1, "U8": 1}  # bytes of an element


def read_in_python(path: Path) -> None:
    read_model_file(path)


def read_in_c(path: Path) -> None:
    library = load_library()
    slot = library.ffi.new("eg_model **")
    try:
        library.check(library.c.eg_model_open(bytes(path), slot))
    except ModelFileError:
        assert slot[0] == library.ffi.NULL
        raise
    library.c.eg_model_free(slot[0])


READERS: dict[str, Reader] = {"python": read_in_python, "c": read_in_c}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    problem = library_problem() if request.param == "c" else None
    if problem:
        pytest.skip(problem)
    return str(request.param)


@pytest.fixture
def read(reader: str) -> Reader:
    return READERS[reader]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return write_smallest(tmp_path / "good.safetensors")


def data_start(content: bytes) -> int:
    return LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")


def refused(read: Reader, path: Path, reason: str) -> None:
    with pytest.raises(ModelFileError, match=reason) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000


def test_every_cut_and_an_appended_byte_are_refused(good: Path, read: Reader) -> None:
    content = good.read_bytes()
    start = data_start(content)
    cuts = {*range(0, start + 70, 7), *range(start, len(content), 499), len(content) - 1}
    for cut in sorted(cuts):
        good.write_bytes(content[:cut])
        with pytest.raises(ModelFileError):
            read(good)
    refused(read, good, "it was cut")
    good.write_bytes(content + b"\0")
    refused(read, good, rf"the file has ({len(content) + 1} bytes|{len(content) + 1 - start} bytes of data)")


# In C, a test of its own does so under the sanitizers.
@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_no_flipped_bit_of_the_header_goes_unnoticed(good: Path, flip: int) -> None:
    content = good.read_bytes()
    with good.open("r+b", buffering=0) as file:
        for position in range(data_start(content)):
            for byte in (content[position] ^ flip, content[position]):
                file.seek(position)
                file.write(bytes([byte]))
                if byte != content[position]:
                    with pytest.raises(ModelFileError):
                        read_model_file(good)
    read_model_file(good)


def test_random_bytes_are_refused(tmp_path: Path, read: Reader) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "noise.safetensors"
    for size in [*range(20), 100, 1000, 100_000]:
        path.write_bytes(random.bytes(size))
        with pytest.raises(ModelFileError):
            read(path)


# Changes of the metadata, whose checksum is then right again: what stands there, what to put in its place, and the
# reasons that Python and C give.
Damage = tuple[str, str, str, str]
MANY_PROMPTS = json.dumps(dict.fromkeys(map(str, range(300)), "")).replace("}", ', "query"')
METADATA: list[Damage] = [
    ('"layers": 1', '"layers": 2', "layers.1", "layers.1.input_norm"),
    ('"layers": 1', '"layers": 0', "layers' is 0", "layers is 0"),
    ('"layers": 1', '"layers": 4294967295', "layers' is 4294967295", "layers is 4294967295"),
    ('"layers": 1', '"layers": 4294967296', "layers' is 4294967296", "too large"),
    ('"layers": 1', '"layers": 1099511627776', "layers", "too large"),
    ('"layers": 1', '"layers": 99999999999999999999', "layers", "too large"),
    ('"layers": 1', '"layers": -2', "layers' is -2", "integer"),
    ('"layers": 1', '"layers": 2.0', "layers' is 2.0", "comma"),
    ('"layers": 1', '"layers": 02', "JSON", "integer"),
    ('"layers": 1', '"layers": "2"', "layers' is '2'", "integer"),
    ('"layers": 1', '"layers": 1, "layers": 1', "twice", "twice"),
    ('"layers": 1', '"depth": 1', "fields", "no config has"),
    ('"layers": 1', '"layers": 1, "more": 1', "fields", "no config has"),
    ('"layers": 1, ', "", "fields", "lacks layers"),
    ('{"layers"', '[{"layers"', "JSON", "object"),
    ('{"layers"', '?{"layers"', "config", "object"),
    ('{"layers"', "[" * 100_000, "nested too deeply", "object"),
    ('"eos_id": 1}', '"eos_id": 1}}', "JSON", "end"),
    ('"eos_id": 1}', '"eos_id": 1,}', "JSON", "string"),
    ('"eos_id": 1}', '"eos_id": 128}', "eos_id", "eos_id"),
    ('"bos_id": 2', '"bos_id": 64', "bos_id", "bos_id"),
    ('"hidden": 64', '"hidden": 192', "embedding|shape|input_norm", "embedding"),
    ('"hidden": 64', '"hidden": 100', "hidden", "hidden"),
    ('"hidden": 64', '"hidden": 65', "hidden", "hidden"),
    ('"heads": 1', '"heads": 0', "heads", "heads"),
    ('"kv_heads": 1', '"kv_heads": 3', "heads", "heads"),
    ('"vocab": 64', '"vocab": 192', "embedding", "embedding"),
    ('"vocab": 64', '"vocab": 127', "vocab", "vocab"),
    ('"vocab": 64', '"vocab": "32"', "vocab", "integer"),
    ('"vocab": 64', '"vocab": true', "vocab", "integer"),
    ('"max_tokens": 16', '"max_tokens": 1', "max_tokens", "max_tokens"),
    ('"max_tokens": 16', '"max_tokens": 4000000000', "max_tokens", "max_tokens"),
    ('"window": 4', '"window": 4000000000', "window", "window"),
    ("[0]", "[1]", "full_attention_layers", "layer 1"),
    ("[0]", "[256]", "full_attention_layers", "cannot be"),
    ("[0]", "[1", "JSON", "integer"),
    ("[0]", "[[[[[[[[1]]]]]]]]", "full_attention_layers", "integer"),
    ("10000.0", "0.0", "rope", "rope"),
    ("10000.0", "1e400", "rope", "rope"),
    ("10000.0", "1e99999999999", "rope", "rope"),
    ("10000.0", f"1{'0' * 400}", "more than 40 digits", "digits"),
    ("10000.0", "10000.", "JSON", "digit"),
    ("10000.0", "10000.0e", "JSON", "digit"),
    ("10000.0", "NaN", "NaN", "digit"),
    ("10000.0", "1.00000000000000000000000000000000000000000001", "digits", "digits"),
    ('"window": 4', '"window": -0', "window", "integer"),
    ("1e-06", "-1e-06", "rms_norm_eps", "eps"),
    ("1e-06", "null", "rms_norm_eps", "digit"),
    ("embgemma", "another", "not an embgemma model file", "not an embgemma model file"),
    ('{"query"', '[{"query"', "prompts", "prompts are damaged: expected an object"),
    ('{"query"', "[" * 100_000, "nested too deeply", "object"),
    ('{"query"', '{"a', "prompts", "prompts"),
    ("task: ", "task: \\u0000", "zero", "zero"),
    ("task: ", "task: \\ud83d", "surrogate", "surrogate"),
    ("task: ", "task: \\x", "escape", "escape"),
    ("task: ", "task: \\u12g4", "escape", "hexadecimal"),
    ("task: ", "task: \\", "escape", "escape"),
    ('"task: search result | query: "', "1", "prompts", "string"),
    ("document", "query", "twice", "twice"),
    ('{"query"', MANY_PROMPTS, "256", "too many"),
    ("null", '"inquiry"', "default prompt", "none of the prompts"),
    ("null", "[]", "default prompt", "default_prompt_name is damaged: expected a string"),
    ("null", '"query\\u0000"', "default prompt", "none of the prompts"),
    ("null", "nul", "JSON", "string"),
    ("null", "null null", "JSON", "end"),
]
# Changes of the header's text, by the same columns: bytes as latin-1.
NORM = '"final_norm":{"dtype":"F32","shape":[64]'
SCALE = '"dtype":"F16","shape":[64]'
SHAPE, PLACE = f"[{TABLE}]", f"[0,{TABLE}]"
NORM_PLACE, LAST_PLACE = f"[{TABLE + 26496},{TABLE + 26752}]", f"[{TABLE + 31104},{TABLE + 31124}]}}"
HEADER: list[Damage] = [
    ("embgemma s", "embgemma S", "checksum", "checksum"),
    ("1e-06", "1e-05", "checksum", "checksum"),
    ('"embgemma"', '"pt"', "not an embgemma model file", "not an embgemma model file"),
    *(
        (f'format_version":"{FORMAT_VERSION}', f'format_version":"{version}', f"version '{version}'.*{remedy}", remedy)
        for version, remedy in (
            *dict.fromkeys(("7", "6", "", "x", "-9"), "convert the checkpoint again with `embgemma convert`").items(),
            *dict.fromkeys(("9", "10", "9" * 30), "update embgemma").items(),
        )
    ),
    ('"data_sha256"', '"data_sha265"', "lacks .*data_sha256", "lacks data_sha256"),
    ('"scheme"', '"scheming"', "lacks .*scheme", "lacks scheme"),
    ('"prompts"', '"prompt"', "lacks .*prompts", "lacks prompts"),
    ('"producer"', '"scheme"', "twice", "twice"),
    ('"embgemma synthetic weights"', "7", "metadata", "string"),
    ("embgemma s", "a \x01", "control", "control"),
    ("embgemma s", "a \xff", "utf-8", "UTF-8"),
    ("embgemma s", "a \xc0\xaf", "utf-8", "UTF-8"),
    ("embgemma s", "a \xed\xa0\x80", "utf-8", "UTF-8"),
    ("embgemma s", "a \xf4\x90\x80\x80", "utf-8", "UTF-8"),
    ('{"__metadata__"', '{"__metadata__":{},"__metadata__"', "twice", "two __metadata__"),
    ('{"__metadata__"', '["__metadata__"', "JSON", "object"),
    ('{"__metadata__"', "{__metadata__", "JSON", "string"),
    ('{"dtype"', '{{{{{{{{"dtype"', "JSON", "string"),
    ('"dtype":"U8",', "", "dtype, shape and data_offsets", "dtype, shape and data_offsets"),
    ('"dtype":"U8"', '"dtype":"U8","dtype":"U8"', "twice", "each once"),
    ('"dtype":"U8"', '"dtype":"U8","more":1', "embedding.weight", "each once"),
    ('"dtype":"U8"', '"kind":"U8"', "embedding.weight", "each once"),
    ('"dtype":"U8"', '"dtype":"F31"', "F31", "F32, F16, I8 or U8"),
    ('"dtype":"U8"', '"dtype":"F64"', "embedding.weight", "F32, F16, I8 or U8"),
    ('"dtype":"U8"', '"dtype":"F32"', "embedding.weight", "disagree"),
    ('"dtype":"U8"', '"dtype":"I8"', "embedding.rate", "embedding.weight"),
    ('"dtype":"U8"', '"dtype":"BOOL"', "embedding.weight", "F32, F16, I8 or U8"),
    ('"dtype":"U8"', '"dtype":["U8"]', "dtype", "string"),
    (NORM, NORM.replace("F32", "I32"), "final_norm", "F32, F16, I8 or U8"),
    (NORM, NORM.replace("[64]", "[8,8]"), r"F32 \(8, 8\); expected F32 \(64,\)", r"F32 \(8, 8\); expected F32 \(64\)"),
    ('"head.weight":{"dtype":"I8"', '"head.weight":{"dtype":"U8"', "head.weight", "head.weight"),
    (SHAPE, f"[{TABLE + 64}]", "embedding.weight", "disagree"),
    (SHAPE, f"[{TABLE // 64},64]", rf"64\); expected U8 \({TABLE},\)", rf"64\); expected U8 \({TABLE}\); conv"),
    (SHAPE, f"[{TABLE},1,1,1,1]", "dimensions", "dimensions"),
    (SHAPE, f"[{'9' * 4201},{'9' * 4201}]", "more than 40 digits", "too large"),
    (SHAPE, f"[{','.join(['9' * 4000] * 250)}]", "more than 40 digits", "too large"),
    (SHAPE, f"[{','.join(['9' * 40] * 25_000)}]", "25000 dimensions", "too large"),
    (SHAPE, "[4294967296,4294967296]", "embedding.weight", "disagree"),
    (SHAPE, "[0]", "embedding.weight", "disagree"),
    (SHAPE, f"[-{TABLE}]", "embedding.weight", "integer of 0 or more"),
    (SHAPE, str(TABLE), "embedding.weight", "list"),
    (SHAPE, f"[{TABLE}.0]", "embedding.weight", "comma"),
    (PLACE, f"[64,{TABLE + 64}]", "starts at byte", "expected 0"),
    (PLACE, f"[{TABLE},0]", "embedding.weight", "disagree"),
    (PLACE, f"[0,{TABLE},{TABLE}]", "embedding.weight", "data_offsets"),
    (PLACE, SHAPE, "embedding.weight", "two data_offsets"),
    (PLACE, f"[-{TABLE},0]", "embedding.weight", "integer of 0 or more"),
    (PLACE, f"[false,{TABLE}.0]", "embedding.weight", "integer of 0 or more"),
    (PLACE, '{"0":1}', "embedding.weight", "list"),
    (PLACE, "[0,18446744073709551615]", "embedding.weight", "cut"),
    (PLACE, f"[{(1 << 64) - TABLE},0]", "embedding.weight", "disagree"),
    (PLACE, f"[{1 << 70},{(1 << 70) + TABLE}]", "starts at byte", "too large"),
    (PLACE, "[99999999,100005... ]", "JSON", "comma"),
    (NORM_PLACE, "[0,256]", "starts at byte", "starts at byte"),
    (LAST_PLACE, f'{LAST_PLACE},{NORM},"data_offsets":{NORM_PLACE}}}', "twice", "final_norm"),
    ("layers.0.down.codebook", "layers.0.down.codebooks", "layers.0.down.codebooks", "layers.0.down.codebook "),
    ("layers.0.input_norm", "layers.1.input_norm", "layers.1.input_norm", "layers.0.input_norm"),
    ("layers.0.q_norm", "layers.0.k_norm", "twice", "layers.0.q_norm"),
    ("layers.0.post_attention_norm", "layers.0.pre_ffn_norm", "twice", "post_attention_norm"),
    ("final_norm", "final_norm\\u0000", "final_norm", "zero"),
    ("head.scale", "head.scales", "head.scales", "head.scale .*: head.scales is in its place"),
    ('"head.scale"', '"\\u001b[2J"', "no place for the tensors", "head.scale"),
    ("tokenizer.model", "extra", "extra", "extra"),
    (SCALE, SCALE.replace("64", "32,2"), "embedding.scale", "embedding.scale"),
    (SCALE, SCALE.replace("64", "32"), "embedding.scale", "disagree"),
    (SCALE, SCALE.replace("64", ""), "embedding.scale", "disagree"),
    ('"dtype":"U8","shape":[20]', '"dtype":"I8","shape":[20]', "tokenizer.model", "tokenizer.model"),
    ('"shape":[8,1,16]', '"shape":[1,8,16]', "layers.0.gate_up.codebook", "layers.0.gate_up.codebook"),
]


def check_damage(good: Path, reader: str, text: bytes, damage: Damage) -> None:
    """Writes that header, and checks that the reader refuses it with the reason expected of it."""
    refused(READERS[reader], join(good, text, split(good)[1]), damage[2 if reader == "python" else 3])


@pytest.mark.parametrize("damage", METADATA)
def test_damaged_metadata_is_refused_with_a_reason(good: Path, reader: str, damage: Damage) -> None:
    header, _ = split(good)
    metadata = header["__metadata__"]
    changed = next(key for key in sorted(metadata) if damage[0] in metadata[key])
    metadata[changed] = metadata[changed].replace(damage[0], damage[1], 1)
    check_damage(good, reader, as_text(header), damage)


@pytest.mark.parametrize("damage", HEADER)
def test_a_damaged_header_is_refused_with_a_reason(good: Path, reader: str, damage: Damage) -> None:
    old, new = (text.encode("latin-1") for text in damage[:2])
    text = as_text(split(good)[0], sign=False)
    assert old in text
    check_damage(good, reader, text.replace(old, new, 1), damage)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda header: header.update(final_norm=[]), "final_norm|expected an object"),
        (lambda header: header.pop("final_norm"), "starts at byte"),
        (lambda header: header.pop("tokenizer.model"), "bytes"),
        (lambda header: header["__metadata__"].clear(), "not an embgemma model file"),
    ],
)
def test_what_is_missing_is_noticed(good: Path, read: Reader, change: Callable[[Header], object], reason: str) -> None:
    header, data = split(good)
    change(header)
    refused(read, join(good, as_text(header), data), reason)


def write_tensors(
    path: Path, entries: list[tuple[str, str, list[int]]], metadata: dict[str, str], contents: dict[str, bytes]
) -> Path:
    """Writes a file of these tensors (name, dtype, shape), each where it belongs, with these contents."""
    header: Header = {"__metadata__": metadata}
    data = b""
    for name, dtype, shape in entries:
        size = SIZES[dtype] * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += contents.get(name, b"")[:size].ljust(size, b"\x3c")  # numbers that are finite, in every type
    return join(path, as_text(header), data)


def test_each_tensor_must_have_its_name_shape_dtype_and_place(good: Path, reader: str) -> None:
    read = READERS[reader]
    header, data = split(good)
    metadata = header.pop("__metadata__")
    del header["tokenizer.model"]
    entries = [(name, entry["dtype"], entry["shape"]) for name, entry in header.items()]
    contents = {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}
    metadata["scheme"] = "int3"  # a label, which no reader goes by
    read(write_tensors(good, entries, metadata, contents))
    for i, (name, dtype, shape) in enumerate(entries):
        wrongs: list[list[tuple[str, str, list[int]]]] = [
            [],
            [("another", dtype, shape)],
            [(name, dtype, [shape[0] + 1, *shape[1:]])],
            [(name, dtype, [shape[0] - 1, *shape[1:]])],
            [(name, dtype, [*shape[:-1], shape[-1] + 1])],
            [(name, "F32" if dtype == "F16" else "F16", shape)],
        ]
        for wrong in wrongs:
            path = write_tensors(good, [*entries[:i], *wrong, *entries[i + 1 :]], metadata, contents)
            refused(read, path, f"{name}|the embedding table has" if reader == "c" else f"{name}|another|table has")
        swapped = [*entries[:i], *entries[i : i + 2][::-1], *entries[i + 2 :]]
        if i + 1 < len(entries):
            refused(read, write_tensors(good, swapped, metadata, contents), "order")


HOSTILE_JSON = ["", "[]", "null", "{}", "{", '{"__metadata__": 1}', '{"__metadata__": {"format": 1}}']
HOSTILE_JSON += ['{"__metadata__": {"format": "embgemma", "format": "embgemma"}}', '{"a": NaN}', '{"a": 1e999}']
HOSTILE_JSON += ['{"\\ud800": {}}', "[" * 500_000, '{"a":' * 100_000, "9" * 10_000, "\ud800"]


@pytest.mark.parametrize("text", HOSTILE_JSON)
def test_hostile_json_is_refused(good: Path, read: Reader, text: str) -> None:
    with pytest.raises(ModelFileError):
        read(join(good, text.encode("utf-8", "surrogatepass"), b"\0" * 64))


def test_a_header_that_claims_too_much_is_refused(good: Path, read: Reader) -> None:
    content = good.read_bytes()
    for length in (len(content), 1 << 20, (1 << 20) + 1, 1 << 63, (1 << 64) - 1):
        good.write_bytes(length.to_bytes(LENGTH_BYTES, "little") + content[LENGTH_BYTES:])
        refused(read, good, "header")


BEGINNINGS = {kind: bytes(at) + magic for at, magic, kind in KINDS} | {"an ONNX model": b"\x08\n\x12\x08embgemma"}


@pytest.mark.parametrize("filling", [b" ", b"\0"])
@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_file_of_another_kind_is_named(good: Path, read: Reader, kind: str, filling: bytes) -> None:
    if filling == b"\0" and len(BEGINNINGS[kind]) == 1:
        pytest.skip("a length that may be")
    for length in (9, 100, 1 << 20):
        good.write_bytes(BEGINNINGS[kind].ljust(length, filling))
        refused(read, good, re.escape(f"this is {kind}, not a safetensors file"))


def test_data_that_is_not_aligned_is_refused(good: Path, read: Reader) -> None:
    header, data = split(good)
    text = as_text(header)
    text += b" " * (-len(text) % 64)  # the data then starts 8 bytes past a multiple of 64
    refused(read, join(good, text, data, alignment=1), "multiple of 64")


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_norms_and_scales_that_are_not_finite_are_refused(good: Path, read: Reader, value: float, place: int) -> None:
    header, data = split(good)
    names = [name for name, entry in header.items() if entry.get("dtype") == "F16" or len(entry.get("shape", "")) == 1]
    names = [name for name in names if header[name]["dtype"] != "U8"]
    assert {"embedding.scale", "final_norm", "layers.0.q_norm", "layers.0.down.scale", "head.scale"} < {*names}
    for name in names:
        begin, end = header[name]["data_offsets"]
        numbers = np.frombuffer(data[begin:end], {"F16": np.float16, "F32": np.float32}[header[name]["dtype"]]).copy()
        numbers[place] = value
        changed = data[:begin] + numbers.tobytes() + data[end:]
        refused(read, join(good, as_text(header), changed), f"{name}.*not finite")
        changed = data[:begin] + bytes(end - begin) + data[end:]
        refused(read, join(good, as_text(header), changed), f"{name}.*all zeros")


def rates_of(path: Path) -> bytes:
    """Of the rows of the table of a file."""
    header, data = split(path)
    return data[slice(*header["embedding.rate"]["data_offsets"])]


def overwrite(path: Path, name: str, content: bytes, first: int = 0) -> Path:
    """Puts bytes in place of those of a tensor, from one of them on."""
    header, data = split(path)
    begin = header[name]["data_offsets"][0] + first
    return join(path, as_text(header), data[:begin] + content + data[begin + len(content) :])


@pytest.mark.parametrize(("row", "rate"), [(0, 0), (5, 3), (63, 33), (7, 255)])
def test_rows_of_no_rate_are_refused(good: Path, read: Reader, row: int, rate: int) -> None:
    refused(read, overwrite(good, "embedding.rate", bytes([rate]), row), f"has rate {rate}[:;] expected 4 … 32;")


@pytest.mark.parametrize(("level", "bits"), [(0, 0), (0, 1), (0, 12), (0, 13), (LOWEST, 12), (127, 255)])
def test_words_that_are_no_code_are_refused(good: Path, read: Reader, level: int, bits: int) -> None:
    rate = rates_of(good)[0]
    overwrite(good, "embedding.code_length", bytes([bits]), (rate - 1) * LEVELS + level - LOWEST)
    refused(read, good, f"words of rate {rate} .* are not a prefix code of up to {WORD_BITS} bits .*; convert")


def test_a_rate_without_a_code_is_refused_only_where_a_row_has_it(good: Path, read: Reader) -> None:
    rates = rates_of(good)
    rate = next(rate for rate in range(RATE_BITS, RATES + 1) if rate not in rates)
    for length in (0, 255):
        read(overwrite(good, "embedding.code_length", bytes([length] * LEVELS), (rate - 1) * LEVELS))
    refused(read, overwrite(good, "embedding.rate", bytes([rate])), f"words of rate {rate} ")


def test_rows_of_another_size_than_the_table_are_refused(good: Path, read: Reader) -> None:
    most = max(rates_of(good))
    needed = SMALLEST.vocab * int(row_bytes(np.array(most), SMALLEST.hidden))
    overwrite(good, "embedding.rate", bytes([most] * SMALLEST.vocab))
    refused(read, good, f"{TABLE} bytes.* need {needed}; convert")


@pytest.mark.parametrize("place", [0, 9, -1])
def test_bytes_behind_the_rows_must_be_zeros(good: Path, read: Reader, place: int) -> None:
    for longer, shorter in itertools.permutations(set(rates_of(good)), 2):
        rates = bytearray(rates_of(good))
        rates[rates.index(longer)] = shorter
        left = TABLE - int(row_bytes(np.frombuffer(rates, np.uint8), SMALLEST.hidden).sum())
        if 9 < left < 64:
            break
    assert 9 < left < 64
    overwrite(good, "embedding.rate", rates)
    read(overwrite(good, "embedding.weight", bytes(left), TABLE - left))
    place = range(TABLE - left, TABLE)[place]
    refused(read, overwrite(good, "embedding.weight", b"\1", place), f"byte {place} .* is not 0; convert")


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 63 + "\0", "\x1b[2J"])
def test_a_digest_of_the_data_has_64_digits(good: Path, read: Reader, digest: str) -> None:
    header, data = split(good)
    header["__metadata__"]["data_sha256"] = digest
    refused(read, join(good, as_text(header), data), "data_sha256 is .*; expected 64 digits .* get it again")


def test_every_byte_of_the_data_is_in_the_checksum(good: Path, reader: str) -> None:
    def check(path: Path) -> None:
        check_model(path) if reader == "c" else read_model_file(path, every_byte=True)

    content = good.read_bytes()
    check(good)
    for place in (data_start(content), *random.Random(0).sample(range(data_start(content), len(content)), 20), -1):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        good.write_bytes(changed)
        refused(check, good, "data_sha256")


def test_a_missing_file_a_folder_and_a_checkpoint_are_refused(tmp_path: Path, reader: str) -> None:
    read, advice = READERS[reader], "embgemma convert"
    refused(read, tmp_path / "none.safetensors", "No such file")
    refused(read, tmp_path, advice if reader == "python" else "not a file")
    path = tmp_path / "model.safetensors"
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps({"__metadata__": {"format": "pt"}, "norm.weight": entry})
    refused(read, join(path, text.encode(), b"\0" * 4), advice)
