"""What libraries read of a bundle besides the model, and the README that shows how they open it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ...kernels.model_file import ModelFile
from ...onnx.onnx_backend import PAD_ID
from ..checkpoint.checkpoint import Checkpoint
from ..part import Part
from ..tokenizer.restrict import restrict_config, restrict_json, restrict_model
from ..tokenizer.tokenizer_files import portable_file
from ..vocabulary.keep import Kept

TEXT = "Which planet is known as the Red Planet?"

# What libraries that tokenize read of a checkpoint: those of Hugging Face in Rust, Swift, Kotlin and JavaScript the
# first four, SentencePiece the last.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "tokenizer.model",
)


def write_tokenizer_files(source: Checkpoint, part: Part, folder: Path) -> None:
    """Copies the tokenizer, or a part of it; in what libraries read, texts are cut to max_tokens, <eos> included."""
    max_tokens = source.config.max_tokens
    limits: dict[str, dict[str, Any]] = {
        "tokenizer.json": {
            "truncation": {"direction": "Right", "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0}
        },
        "tokenizer_config.json": {"model_max_length": max_tokens},
        # transformers.js would look for another file where it runs in WebAssembly.
        "config.json": {"transformers.js_config": {"dtype": "fp32"}},
    }
    for name in TOKENIZER_FILES:
        path = (source.encoder_folder if name == "config.json" else source.tokenizer_folder) / name
        if path.is_file():
            content = portable_file(path, source.encoder_folder)
            if part.kept is not None:
                content = _restricted(name, content, part.kept)
            if name in limits:
                content = _json({**json.loads(content), **limits[name]})
            (folder / name).write_bytes(content)
    if (folder / "tokenizer.json").exists():
        path = folder / "tokenizer_config.json"
        given = json.loads(path.read_bytes()) if path.exists() else limits[path.name]
        path.write_bytes(_json({"tokenizer_class": "PreTrainedTokenizerFast", **_ends(folder), **given}))


def _restricted(name: str, content: bytes, kept: Kept) -> bytes:
    """A file of the tokenizer with a part of its pieces."""
    if name == "tokenizer.model":
        return restrict_model(content, kept.ids)
    raw = json.loads(content)
    if name == "tokenizer.json":
        return json.dumps(restrict_json(raw, kept.ids), ensure_ascii=False, separators=(",", ":")).encode()
    return _json(restrict_config(raw, kept.ids, len(kept.rows)))


def _ends(folder: Path) -> dict[str, str]:
    """The special tokens that libraries must know by name, as tokenizer_config.json has them."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tokens = json.loads((folder / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    names = {token["id"]: token["content"] for token in tokens}
    ids = {"bos_token": config["bos_token_id"], "eos_token": config["eos_token_id"], "pad_token": PAD_ID}
    return {key: names[i] for key, i in ids.items() if i in names}


def write_modules(model: ModelFile, dim: int, folder: Path) -> None:
    """What sentence-transformers reads: the model gives vectors of tokens, whose mean gets length 1."""
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    files: dict[str, Any] = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(kinds.items())
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": dim,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": False,
            "include_prompt": True,
        },
        "sentence_bert_config.json": {"max_seq_length": model.config.max_tokens, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": model.prompts,
            "default_prompt_name": model.default_prompt_name,
            "similarity_fn_name": model.similarity_fn_name,
        },
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(_json(value))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


def write_readme(folder: Path, model: ModelFile, dim: int, name: str, file: str, *, text: bool) -> None:
    """The README of a bundle whose folder will have this name; its examples run where the folder lies."""
    prompt_name, prompt = next(iter(model.prompts.items()), (None, ""))
    fields = {
        "NAME": json.dumps(name, ensure_ascii=False),
        "PLACE": json.dumps(f"./{name}", ensure_ascii=False),
        "FILE": json.dumps(file),
        "MODEL": json.dumps(f"{name}/{file}", ensure_ascii=False),
        "TOKENIZER": json.dumps(f"{name}/tokenizer.json", ensure_ascii=False),
        "TEXT": json.dumps(TEXT),
        "PROMPTED": json.dumps(prompt + TEXT, ensure_ascii=False),
        "PROMPT": "" if prompt_name is None else f", prompt_name={json.dumps(prompt_name, ensure_ascii=False)}",
        "DIM": str(dim),
        "LIMIT": f"{model.config.max_tokens:,}",
        "WEIGHTS": model.scheme,
        "SPEED": SPEED if model.scheme in ("int4", "balanced") else "",
    }
    examples = OF_TEXT if text else OF_TOKENS if (folder / "tokenizer.json").exists() else NO_TOKENIZER
    page = re.sub("<([A-Z]+)>", lambda field: fields[field[1]], INTRODUCTION + examples + OURS)
    (folder / "README.md").write_text(page, "utf-8", "replace")


SPEED = "In WebAssembly (onnxruntime-web), these weights take about three times as long as `int8`.\n"

INTRODUCTION = """# Text embeddings by an ONNX model

Weights: <WEIGHTS>. Vectors: <DIM> values, of length 1. Texts: up to <LIMIT> tokens; longer ones are cut. A prompt goes
before each text; `manifest.json` lists them, and all else that an app needs to know.
<SPEED>
The examples run in the folder that holds this one.
"""

OF_TOKENS = """
`sentence_embedding` is the vector. `last_hidden_state` has a vector for each token; their mean, brought to length 1, is
the same vector, so libraries that pool need no other settings than these.

## transformers.js

```js
import { pipeline } from '@huggingface/transformers';
const embed = await pipeline('feature-extraction', <PLACE>);
const vectors = await embed([<PROMPTED>], { pooling: 'mean', normalize: true });
console.log(vectors.tolist());
```

or, without the pipeline:

```js
import { AutoModel, AutoTokenizer } from '@huggingface/transformers';
const tokenizer = await AutoTokenizer.from_pretrained(<PLACE>), model = await AutoModel.from_pretrained(<PLACE>);
const { sentence_embedding: vectors } = await model(tokenizer([<PROMPTED>], { padding: true, truncation: true }));
console.log(vectors.tolist());
```

## fastembed

```python
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
source = {"sources": ModelSource(hf=<NAME>), "dim": <DIM>, "model_file": <FILE>}
TextEmbedding.add_custom_model(<NAME>, PoolingType.DISABLED, normalization=False, **source)
vectors = list(TextEmbedding(<NAME>, specific_model_path=<PLACE>).embed([<PROMPTED>]))
```

## sentence-transformers

```python
from sentence_transformers import SentenceTransformer  # pip install 'sentence-transformers[onnx]'
model = SentenceTransformer(<PLACE>, backend="onnx", model_kwargs={"provider": "CPUExecutionProvider"})
vectors = model.encode([<TEXT>]<PROMPT>)
print(model.similarity(vectors, vectors))
```

## ONNX Runtime

```python
import numpy, onnxruntime, tokenizers
texts = [tokenizers.Tokenizer.from_file(<TOKENIZER>).encode(<PROMPTED>).ids]
inputs = {"input_ids": numpy.array(texts), "attention_mask": numpy.ones_like(texts)}
(vectors,) = onnxruntime.InferenceSession(<MODEL>).run(["sentence_embedding"], inputs)
```
"""

NO_TOKENIZER = """
The checkpoint had no `tokenizer.json`. Other libraries need it: put one there, and export again.
"""

OF_TEXT = """
## ONNX Runtime

```python
import numpy, onnxruntime, onnxruntime_extensions
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(onnxruntime_extensions.get_library_path())
session = onnxruntime.InferenceSession(<MODEL>, options)
(vectors,) = session.run(["sentence_embedding"], {"text": numpy.array([<PROMPTED>], dtype=object)})
```
"""

OURS = """
## embgemma

```python
import embgemma
model = embgemma.load(<PLACE>)
vectors = model.encode([<TEXT>]<PROMPT>)
print(model.similarity(vectors, vectors))
```
"""
