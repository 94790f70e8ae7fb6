"""A good model file is read as it was written; a cut, corrupt or hostile one is refused, never read wrongly."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from embgemma.export.synthetic import write_synthetic_model
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.model_file import CHECKSUM, metadata_checksum, read_model_file
from tests import tiny

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# As small as the format allows: the tests below read thousands of damaged copies.
CONFIG = replace(tiny.CONFIG, layers=1, hidden=64, ffn=64, heads=1, vocab=64, max_tokens=16, full_attention_layers=())
TOKENIZER_MODEL = b"not a real tokenizer"
SCHEMES = ("float32", "int8", "balanced", "mixed", "int4")

Header = dict[str, Any]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    write_synthetic_model(path, CONFIG, "mixed", tokenizer_model=TOKENIZER_MODEL)
    return path


def split(path: Path) -> tuple[Header, bytes]:
    """The header as JSON, and the data."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:start]), content[start:]


def join(path: Path, header: Header | str, data: bytes, *, alignment: int = 64, sign: bool = True) -> Path:
    """Writes a file of that header and data; `sign` renews the checksum of the metadata."""
    if isinstance(header, dict) and sign:
        header["__metadata__"][CHECKSUM] = metadata_checksum(header["__metadata__"])
    text = (header if isinstance(header, str) else json.dumps(header)).encode("utf-8", "surrogatepass")
    text += b" " * (-(8 + len(text)) % alignment)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("tokenizer_model", [b"", TOKENIZER_MODEL])
def test_a_file_is_read_as_it_was_written(tmp_path: Path, scheme: Any, tokenizer_model: bytes) -> None:
    path = tmp_path / "model.safetensors"
    write_synthetic_model(path, CONFIG, scheme, tokenizer_model=tokenizer_model)
    model = read_model_file(path)
    assert (model.path, model.config, model.scheme) == (path, CONFIG, scheme)
    assert model.prompts["query"] == "task: search result | query: "
    assert (model.default_prompt_name, model.similarity_fn_name) == (None, "cosine")
    published = load_file(path)  # the published library reads the same names and values
    stored_tokenizer = published.pop("tokenizer.model", None)
    assert (stored_tokenizer is None) == (model.tokenizer_model is None) == (not tokenizer_model)
    assert model.tokenizer_model is None or bytes(model.tokenizer_model) == tokenizer_model
    assert published.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(tensor, published[name], strict=True)
        assert tensor.ctypes.data % 64 == 0
        assert not tensor.flags.writeable


def test_the_default_prompt_is_read(good: Path) -> None:
    header, data = split(good)
    header["__metadata__"]["default_prompt_name"] = '"query"'
    assert read_model_file(join(good, header, data)).default_prompt_name == "query"


def test_the_scheme_is_a_label(good: Path) -> None:
    header, data = split(good)
    header["__metadata__"]["scheme"] = "int3"
    assert read_model_file(join(good, header, data)).scheme == "int3"


def test_every_cut_and_an_appended_byte_are_refused(good: Path) -> None:
    content = good.read_bytes()
    data_start = 8 + int.from_bytes(content[:8], "little")
    cuts = {*range(0, data_start + 70, 7), *range(data_start, len(content), 499), len(content) - 1}
    for cut in sorted(cuts):
        good.write_bytes(content[:cut])
        with pytest.raises(ModelFileError):
            read_model_file(good)
    good.write_bytes(content + b"\0")
    with pytest.raises(ModelFileError, match=rf"good\.safetensors: the file has {len(content) + 1} bytes"):
        read_model_file(good)


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_no_flipped_bit_of_the_header_goes_unnoticed(good: Path, flip: int) -> None:
    content = bytearray(good.read_bytes())
    data_start = 8 + int.from_bytes(content[:8], "little")
    for position in range(data_start):
        content[position] ^= flip
        good.write_bytes(content)
        with pytest.raises(ModelFileError):
            read_model_file(good)
        content[position] ^= flip


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "noise.safetensors"
    for size in [*range(20), 100, 1000, 100_000]:
        path.write_bytes(random.bytes(size))
        with pytest.raises(ModelFileError):
            read_model_file(path)


def set_entry(name: str, **fields: Any) -> Callable[[Header], None]:
    return lambda header: header[name].update(fields)


def set_metadata(**fields: Any) -> Callable[[Header], None]:
    return lambda header: header["__metadata__"].update(fields)


def set_config(**fields: Any) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        config = json.loads(header["__metadata__"]["config"])
        header["__metadata__"]["config"] = json.dumps({**config, **fields})

    return change


def swap(first: str, second: str) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        header[first], header[second] = header[second], header[first]

    return change


HOSTILE: dict[str, tuple[Callable[[Header], object], str]] = {
    "huge offsets": (set_entry("final_norm", data_offsets=[1 << 70, (1 << 70) + 256]), "starts at byte"),
    "negative offset": (set_entry("embedding.weight", data_offsets=[-1024, 0]), "embedding.weight"),
    "overlap": (set_entry("final_norm", data_offsets=[0, 256]), "starts at byte"),
    "offsets not integers": (set_entry("embedding.weight", data_offsets=[False, 1024.0]), "embedding.weight"),
    "one offset": (set_entry("embedding.weight", data_offsets=[0]), "embedding.weight"),
    "offsets not a list": (set_entry("embedding.weight", data_offsets={"0": 1}), "embedding.weight"),
    "overflowing shape": (set_entry("final_norm", shape=[1 << 40, 1 << 40]), "final_norm"),
    "negative shape": (set_entry("final_norm", shape=[-8, -8]), "final_norm"),
    "shape not a list": (set_entry("final_norm", shape=64), "final_norm"),
    "shape not integers": (set_entry("final_norm", shape=[64.0]), "final_norm"),
    "shape of another rank": (set_entry("final_norm", shape=[8, 8]), "final_norm"),
    "dtype unknown": (set_entry("final_norm", dtype="F31"), "F31"),
    "dtype not a string": (set_entry("final_norm", dtype=["F32"]), "dtype"),
    "dtype of another size": (set_entry("final_norm", dtype="F64"), "final_norm"),
    "dtype of the same size": (set_entry("final_norm", dtype="I32"), "final_norm"),
    "matrix of no format": (set_entry("head.weight", dtype="BOOL"), "head.weight"),
    "int8 called int4": (set_entry("head.weight", dtype="U8"), "head.weight"),
    "codebooks of another shape": (set_entry("layers.0.down.codebook", shape=[1, 4, 16]), "layers.0.down.codebook"),
    "embedding row of another width": (set_entry("embedding.weight", shape=[33, 64]), "embedding.weight"),
    "embedding groups too small": (set_entry("embedding.scale", shape=[8, 8]), "embedding.scale|scales"),
    "embedding scale of no group": (set_entry("embedding.scale", shape=[]), "embedding.scale"),
    "tokenizer not bytes": (set_entry("tokenizer.model", dtype="I8"), "tokenizer.model"),
    "entry not an object": (lambda header: header.update(final_norm=[]), "final_norm"),
    "entry with a field more": (set_entry("final_norm", more=1), "final_norm"),
    "tensor missing": (lambda header: header.pop("final_norm"), "starts at byte"),
    "last tensor missing": (lambda header: header.pop("tokenizer.model"), "bytes"),
    "tensor unknown": (lambda header: header.update(extra=header.pop("tokenizer.model")), "extra"),
    "tensors in another order": (swap("layers.0.post_attention_norm", "layers.0.pre_ffn_norm"), "order"),
    "no metadata": (lambda header: header["__metadata__"].clear(), "not an embgemma model file"),
    "of another program": (set_metadata(format="pt"), "not an embgemma model file"),
    "newer version": (set_metadata(format_version="5"), "format version '5'"),
    "no prompts": (lambda header: header["__metadata__"].pop("prompts"), "prompts"),
    "prompts not an object": (set_metadata(prompts="[]"), "prompts"),
    "prompts not strings": (set_metadata(prompts='{"query": 1}'), "prompts"),
    "prompts twice": (set_metadata(prompts='{"query": "a", "query": "b"}'), "twice"),
    "prompts not JSON": (set_metadata(prompts="{"), "prompts"),
    "prompts nested deeply": (set_metadata(prompts="[" * 100_000), "nested too deeply"),
    "default prompt unknown": (set_metadata(default_prompt_name='"other"'), "default prompt"),
    "default prompt a list": (set_metadata(default_prompt_name="[]"), "default prompt"),
    "config not JSON": (set_metadata(config="?"), "config"),
    "config nested deeply": (set_metadata(config="[" * 100_000), "nested too deeply"),
    "config with a field more": (set_config(more=1), "fields"),
    "layers by the billion": (set_config(layers=1 << 40), "layers"),
    "another layer count": (set_config(layers=2), "layers.1"),
    "vocab a string": (set_config(vocab="32"), "vocab"),
    "vocab a truth": (set_config(vocab=True), "vocab"),
    "hidden not aligned": (set_config(hidden=65), "hidden"),
    "hidden of another size": (set_config(hidden=128), "embedding|shape"),
    "no heads": (set_config(heads=0), "heads"),
    "theta too large for a float": (set_config(rope_theta_full=10**400), "rope_theta_full"),
    "eps negative": (set_config(rms_norm_eps=-1e-6), "rms_norm_eps"),
    "eps null": (set_config(rms_norm_eps=None), "rms_norm_eps"),
    "full layer out of range": (set_config(full_attention_layers=[1]), "full_attention_layers"),
    "bos out of range": (set_config(bos_id=64), "bos_id"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_with_a_reason(good: Path, case: str) -> None:
    change, reason = HOSTILE[case]
    header, data = split(good)
    change(header)
    with pytest.raises(ModelFileError, match=reason) as caught:
        read_model_file(join(good, header, data))
    assert str(caught.value).startswith(f"{good}: ")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "{",
        '{"__metadata__": 1}',
        '{"__metadata__": {"format": "embgemma", "format": "embgemma"}}',
        '{"__metadata__": {"format": 1}}',
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"\\ud800": {}}',
        "[" * 500_000,
        '{"a":' * 100_000,
        "9" * 10_000,
        "\ud800",
    ],
)
def test_hostile_json_is_refused(good: Path, text: str) -> None:
    with pytest.raises(ModelFileError):
        read_model_file(join(good, text, b"\0" * 64))


def test_a_duplicated_tensor_is_refused(good: Path) -> None:
    header, data = split(good)
    text = json.dumps(header)
    entry = json.dumps(header["final_norm"])
    with pytest.raises(ModelFileError, match="twice"):
        read_model_file(join(good, f'{text[:-1]}, "final_norm": {entry}}}', data))


def test_a_header_that_claims_too_much_is_refused(good: Path) -> None:
    content = good.read_bytes()
    for length in (len(content), 1 << 20, (1 << 20) + 1, 1 << 63, (1 << 64) - 1):
        good.write_bytes(length.to_bytes(8, "little") + content[8:])
        with pytest.raises(ModelFileError, match="header"):
            read_model_file(good)


def test_data_that_is_not_aligned_is_refused(good: Path) -> None:
    header, data = split(good)
    text = json.dumps(header)
    text += " " * (-len(text) % 64)  # the data then starts 8 bytes past a multiple of 64
    join(good, text, data, alignment=1)
    with pytest.raises(ModelFileError, match="multiple of 64"):
        read_model_file(good)


def test_changed_metadata_without_a_new_checksum_is_refused(good: Path) -> None:
    header, data = split(good)
    set_config(rms_norm_eps=1e-5)(header)
    with pytest.raises(ModelFileError, match="checksum"):
        read_model_file(join(good, header, data, sign=False))


@pytest.mark.parametrize("name", ["final_norm", "layers.0.q_norm", "layers.0.down.scale", "head.scale"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_norms_and_scales_that_are_not_finite_are_refused(good: Path, name: str, value: float) -> None:
    header, data = split(good)
    changed = bytearray(data)
    end = header[name]["data_offsets"][1]
    changed[end - 4 : end] = np.float32(value).tobytes()
    with pytest.raises(ModelFileError, match=f"{name}.*not finite"):
        read_model_file(join(good, header, bytes(changed)))


def test_a_missing_file_a_folder_and_a_checkpoint_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        read_model_file(tmp_path / "none.safetensors")
    with pytest.raises(ModelFileError, match="embgemma convert"):
        read_model_file(tmp_path)
    path = tmp_path / "model.safetensors"
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    join(path, json.dumps({"__metadata__": {"format": "pt"}, "norm.weight": entry}), b"\0" * 4)
    with pytest.raises(ModelFileError, match="embgemma convert"):
        read_model_file(path)


def test_a_second_model_of_the_family_fits(tmp_path: Path) -> None:
    config = replace(CONFIG, layers=2, hidden=128, heads=4, kv_heads=2, vocab=128, full_attention_layers=(0, 1))
    path = tmp_path / "other.safetensors"
    write_synthetic_model(path, config, "int8")
    assert read_model_file(path).config == config
