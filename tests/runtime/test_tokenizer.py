"""Token ids equal those of the Hugging Face tokenizer, on a small model trained here and on the real one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from embgemma.export.tokenizer.tokenizer_table import build_tokenizer_table
from embgemma.kernels.errors import ModelFileError
from embgemma.kernels.native import library_problem
from embgemma.kernels.native_tokenizer import NativeTokenizer
from embgemma.tokenizer import Tokenizer
from tests import tiny

tokenizers = pytest.importorskip("tokenizers", reason="the Hugging Face tokenizer is compared with")

BOS, EOS = 2, 1
FUZZED_STRINGS = {"sentencepiece": 20_000, "native": 200_000}
FUZZ_SEED = 20_509
UNLIMITED = 1 << 30

AnyTokenizer: TypeAlias = Tokenizer | NativeTokenizer

SCRIPTS = (
    "abcdefghijklmnopqrstuvwxyz ABC 0123456789 .,;:!?'\"()-_/\\@#%&*+=~`^$|{}[]<>",
    "éèêëàâäôöûüçñßøåæœđłşğıİ ĄĆŻ",
    "абвгдежзийклмн ўєіїґ",
    "αβγδεζηθ άέή",
    "אבגדהוזחט ִַָ",
    "ابتثجحخد ًٌٍ ـــ ﷺ",
    "अआइईकखगघ्िी ়ं",
    "กขฃคฅฆ ะาิีึื่้",
    "你好世界的一是不了人我 。，、「」",
    "ひらがなカタカナー ｶﾀｶﾅ",
    "한국어를 ᄒ\u1161\u11ab",
    "😀😃👨‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽 \ufe0f\u200d",
    "∀∃∈ℝ∑∫√≈≠≤𝔸𝒷①②½",
    "\u0300\u0301\u0302\u0327\u0328e\u0301o\u0308",
)
LOOK_ALIKES = (
    *("<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "[multimodal]", "<unused0>", "<unused12>", "<unused6241>"),
    *("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<0x41>", "<0x0A>", "<0xFF>"),
    *("<h1>", "</h1>", "<table>", "<strong>", "<code>", "</s>", "<s>", "[INST]", "[@BOS@]", "<bos", "bos>", "<<eos>>"),
    *("▁", "▁▁", "▁the", "▁▁▁▁ ", " ▁▁", "▁ ▁"),
)
CONTROLS = "\0\x01\x07\b\t\n\v\f\r\x1b\x7f\x85\xa0\xad\u2028\u2029\u200b\u200e\u202e\u3000\ufeff\ufffd\ufffe\U0010ffff"
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he")


def fuzzed_string(rng: random.Random) -> str:
    """One string of up to about 15 parts of many kinds; one in 50 holds a very long run."""
    makers = (
        lambda: "".join(rng.choices(rng.choice(SCRIPTS), k=rng.randrange(1, 12))),
        lambda: " ".join(rng.choices(WORDS, k=rng.randrange(1, 8))),
        lambda: rng.choice(LOOK_ALIKES),
        lambda: rng.choice((" ", "\n", "\t", "▁", "\r\n", "=", "a", "-")) * rng.randrange(1, 70),
        lambda: "".join(rng.choices(CONTROLS, k=rng.randrange(1, 4))),
        lambda: "".join(rng.choices(" \n\t▁", k=rng.randrange(1, 12))),
        lambda: chr(rng.choice((rng.randrange(0xD800), rng.randrange(0xE000, 0x110000)))),
        lambda: "".join(rng.choices(rng.choices(rng.choice(SCRIPTS), k=2), k=rng.randrange(1, 40))),
        lambda: rng.choice((str(rng.randrange(10**9)), f"{rng.random():.6f}", hex(rng.randrange(1 << 40)))),
    )
    parts = [rng.choice(makers)() for _ in range(rng.randrange(16))]
    if rng.randrange(50) == 0:
        parts.append(rng.choice((" ", "\n", "▁", "a", "é", "你", "😀", "ab", " the")) * rng.randrange(100, 2000))
    return "".join(parts)


def hugging_face_equivalent() -> Any:
    """The Hugging Face tokenizer of the small model."""
    return tokenizers.Tokenizer.from_str(json.dumps(tiny.tokenizer_json()))


@pytest.fixture(scope="module", params=["sentencepiece", "native"])
def kind(request: pytest.FixtureRequest) -> str:
    problem = library_problem() if request.param == "native" else None
    if problem:
        pytest.skip(problem)
    return str(request.param)


def tokenizer_of(kind: str, model_bytes: bytes) -> AnyTokenizer:
    if kind == "native":
        return NativeTokenizer(build_tokenizer_table(model_bytes), BOS, EOS)
    return Tokenizer(model_bytes, BOS, EOS)


@pytest.fixture(scope="module")
def small(kind: str) -> AnyTokenizer:
    return tokenizer_of(kind, tiny.tokenizer_model())


@pytest.fixture(scope="module")
def real(kind: str, checkpoint: Path) -> AnyTokenizer:
    return tokenizer_of(kind, (checkpoint / "tokenizer.model").read_bytes())


@pytest.fixture(scope="module")
def hugging_face(checkpoint: Path) -> Any:
    result = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    result.no_truncation()
    return result


def assert_same_ids(ours: AnyTokenizer, theirs: Any, texts: Iterable[str]) -> None:
    for text in texts:
        ids = ours.encode(text, UNLIMITED).ids
        assert ids == [BOS, *theirs.encode(text, add_special_tokens=False).ids, EOS], repr(text)
        assert max(ids) < ours.vocab


def test_small_model_agrees_with_hugging_face(small: AnyTokenizer) -> None:
    rng = random.Random(FUZZ_SEED)
    texts = [*LOOK_ALIKES, "", *(fuzzed_string(rng) for _ in range(2_000))]
    assert_same_ids(small, hugging_face_equivalent(), texts)


@pytest.mark.parametrize("line_break", ["\n", "\n\n\n", "\n \n", " \r\n", "\n▁▁", " "])
def test_long_text_agrees_with_hugging_face(small: AnyTokenizer, line_break: str) -> None:
    rng = random.Random(FUZZ_SEED)
    text = "".join(" ".join(rng.choices(WORDS, k=12)) + line_break for _ in range(6_000))
    assert len(text) > 3 * 65_536  # several of the parts in which long texts are tokenized
    assert_same_ids(small, hugging_face_equivalent(), [text])


@pytest.mark.parametrize("script", SCRIPTS)
def test_long_words_agree_with_hugging_face(real: AnyTokenizer, hugging_face: Any, script: str) -> None:
    rng = random.Random(FUZZ_SEED)
    letters = script.replace(" ", "")
    texts = ["".join(rng.choices(rng.sample(letters, k=min(k, len(letters))), k=20_000)) for k in (1, 2, 5, 1000)]
    assert_same_ids(real, hugging_face, texts)


def test_real_model_agrees_with_hugging_face_on_fuzzed_strings(
    real: AnyTokenizer, kind: str, hugging_face: Any
) -> None:
    rng = random.Random(FUZZ_SEED)
    assert_same_ids(real, hugging_face, LOOK_ALIKES)
    assert_same_ids(real, hugging_face, (fuzzed_string(rng) for _ in range(FUZZED_STRINGS[kind])))


def test_every_added_token_alone_and_in_text(real: AnyTokenizer, hugging_face: Any) -> None:
    added = [token.content for i, token in hugging_face.get_added_tokens_decoder().items() if i < real.vocab]
    assert len(added) > 6_000
    assert_same_ids(real, hugging_face, [form for name in added for form in (name, f"a {name} b", name * 2)])


def test_image_token_beyond_the_vocabulary_is_ordinary_text(real: AnyTokenizer, hugging_face: Any) -> None:
    assert hugging_face.token_to_id("<image_soft_token>") == real.vocab
    assert max(real.encode("an <image_soft_token> here", UNLIMITED).ids) < real.vocab


def test_golden_ids(real: AnyTokenizer, checkpoint: Path, golden: Path) -> None:
    prompts = json.loads((checkpoint / "config_sentence_transformers.json").read_text("utf-8"))["prompts"]
    for row in json.loads((golden / "texts.json").read_text("utf-8"))["rows"]:
        prompt = prompts[row["prompt"]] if row["prompt"] else ""
        assert real.encode(prompt + row["text"], max_tokens=2048).ids == row["ids"]


def test_empty_text_is_bos_and_eos(small: AnyTokenizer) -> None:
    assert small.encode("", UNLIMITED).ids == [BOS, EOS]


@pytest.mark.parametrize("text", ["the of " * 50, "\n\n" * 50, "<bos>" * 50, "a▁▁b" * 50])
def test_truncation_keeps_the_first_tokens_and_eos(small: AnyTokenizer, text: str) -> None:
    whole = small.encode(text, UNLIMITED).ids
    cut = small.encode(text, max_tokens=20)
    assert cut.truncated
    assert cut.ids == [*whole[:19], EOS]


def test_a_text_that_just_fits_is_not_truncated(small: AnyTokenizer) -> None:
    whole = small.encode("the of and to", UNLIMITED)
    assert not whole.truncated
    assert small.encode("the of and to", max_tokens=len(whole.ids)) == whole
    assert small.encode("the of and to", max_tokens=len(whole.ids) - 1).truncated
    assert small.encode("the", max_tokens=2).ids == [BOS, EOS]


def test_a_batch_is_what_its_texts_are_alone(small: AnyTokenizer) -> None:
    rng = random.Random(FUZZ_SEED)
    texts = ["", *(fuzzed_string(rng) for _ in range(200)), ""]
    for max_tokens in (2, 3, 20, UNLIMITED):
        alone = [small.encode(text, max_tokens) for text in texts]
        batch = small.encode_batch(texts, max_tokens)
        assert batch.split() == [text.ids for text in alone]
        assert batch.truncated.tolist() == [text.truncated for text in alone]
        assert (batch.ids.dtype, batch.offsets.dtype) == (np.int32, np.int64)
    assert small.encode_batch([], 20).split() == []


@pytest.mark.parametrize("model_bytes", [b"", b"not a model", b"\x0a\xff\xff\xff"])
def test_bytes_that_are_no_model(model_bytes: bytes) -> None:
    with pytest.raises(ModelFileError, match="SentencePiece"):
        Tokenizer(model_bytes, BOS, EOS)


@pytest.mark.parametrize("piece", [b"<0x41>", b"<bos>", b"<unk>"])
def test_piece_that_is_not_unicode(piece: bytes) -> None:
    assert piece in tiny.tokenizer_model()
    with pytest.raises(ModelFileError, match="SentencePiece"):
        Tokenizer(tiny.tokenizer_model().replace(piece, b"\xff" + piece[1:]), BOS, EOS)
