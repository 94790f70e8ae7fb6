"""Checkpoint → a folder for an app: the ONNX model, its companions, and a manifest of all of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...inputs import check_path
from ...kernels.errors import InputError
from ...kernels.model_file import ModelFile
from ...kernels.system import utf8_path
from ...model import load
from ...onnx.onnx_backend import PAD_ID, SENTENCE_EMBEDDING, SESSION_CONFIG, describe_onnx_model
from ...onnx.onnx_facts import OnnxFacts, onnx_facts
from ...onnx.onnx_file import LIBRARY, read_onnx_file
from ...output_file import check_parent, looking_at, whole_folder
from .bundle_files import TOKENIZER_FILES, write_modules, write_readme, write_tokenizer_files
from .export import Exported, export_onnx

MODEL = "onnx/model.onnx"  # where transformers.js and sentence-transformers look for it
MANIFEST = "manifest.json"
OPERATORS = "required_operators.config"

FORMAT_NAME, FORMAT_VERSION = "embgemma-onnx-bundle", 1

# Texts whose ids and vectors the manifest has, so that an app can be checked: with spaces and line breaks, with
# characters of several bytes, and with those that have no token of their own.
EXAMPLES = (
    "Which planet is known as the Red Planet?",
    "  def mean(values):\n\n\treturn sum(values) / len(values)",
    "Ein Zug nach Zürich – 雨の日 🚲 \U00012000",
)
_EXAMPLE_NUMBERS = 8  # of a vector: enough to see that it is right
_EXAMPLE_DIGITS = 4

_READ_AT_ONCE = 1 << 20


def check_bundle_destination(folder: Path, *, force: bool) -> None:
    """Raises InputError unless a bundle may be written to `folder`; only a bundle is ever replaced."""
    with looking_at(folder):
        check_parent(folder)
        utf8_path(folder, LIBRARY)
        if not folder.exists():
            return
        if not folder.is_dir():
            raise InputError(f"cannot write {folder}: it is a file; give the name of a folder that does not exist")
        if not (folder / MANIFEST).is_file():
            raise InputError(f"{folder} exists and is no bundle, so it will not be replaced; choose another name")
        if not force:
            raise InputError(f"{folder} exists; choose another name, or replace it with --force")


def export_bundle(
    checkpoint: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    force: bool = False,
    replaces: Iterable[Path] = (),
    **options: Any,
) -> Exported:
    """Writes a bundle; the folder appears complete and checked, or not at all.

    Args:
        checkpoint: folder of a checkpoint as sentence-transformers lays it out.
        folder: the folder to make.
        force: whether to replace a bundle that exists.
        replaces, options: of `export_onnx`.

    Raises:
        InputError: the folder exists or cannot be written, or an argument is unknown or out of range.
        CheckpointError, BackendError, EmbgemmaError, OSError: see `export_onnx`.
    """
    folder = check_path("folder", folder)
    check_bundle_destination(folder, force=force)
    text = bool(options.get("text"))
    if options.get("last_hidden_state"):
        raise InputError("last_hidden_state of a bundle is what libraries pool; leave the option out, or take --output")
    with whole_folder(folder, force=force) as made:
        (made / MODEL).parent.mkdir()
        exported = export_onnx(checkpoint, made / MODEL, for_pooling=not text, replaces=(folder, *replaces), **options)
        (made / OPERATORS).write_text(exported.operators_config, "utf-8")
        file = read_onnx_file(made / MODEL, with_tokenizer=True)
        model, facts = describe_onnx_model(made / MODEL, file), onnx_facts(made / MODEL, file)
        dim = int(facts.outputs[SENTENCE_EMBEDDING].shape[1])
        if not text:
            write_tokenizer_files(exported.source, exported.part, made)
            write_modules(model, dim, made)
        write_readme(made, model, dim, folder.name, MODEL, text=text)
        manifest = json.dumps(_manifest(made, model, facts), ensure_ascii=False, indent=1)
        (made / MANIFEST).write_text(manifest + "\n", "utf-8")
    return replace(exported, model=folder / MODEL)


def _manifest(folder: Path, model: ModelFile, facts: OnnxFacts) -> dict[str, Any]:
    """The manifest of a folder that has everything else."""
    return {
        "format": FORMAT_NAME,
        "format_version": FORMAT_VERSION,
        "producer": f"embgemma {__version__}",
        "model": {
            "file": MODEL,
            "weights": model.scheme,
            "target": facts.target,
            "needs": facts.needs(model.scheme),
            "session_config": SESSION_CONFIG,
            "operator_sets": facts.opsets,
            "inputs": {name: asdict(value) for name, value in facts.inputs.items()},
            "outputs": {name: asdict(value) for name, value in facts.outputs.items()},
        },
        "embedding": {
            "output": SENTENCE_EMBEDDING,
            "dimensions": facts.outputs[SENTENCE_EMBEDDING].shape[1],
            "normalized": True,
            "similarity": model.similarity_fn_name,
        },
        "tokens": {
            "max": model.config.max_tokens,
            "layout": "bos_id, tokens of prompt and text, eos_id; too many are cut from the end of the text",
            "bos_id": model.config.bos_id,
            "eos_id": model.config.eos_id,
            "pad_id": PAD_ID,
            "tokenizer": [name for name in TOKENIZER_FILES if (folder / name).is_file()] or MODEL,
        },
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "examples": _examples(folder / MODEL),
        "files": {
            each.relative_to(folder).as_posix(): {"bytes": each.stat().st_size, "sha256": _sha256(each)}
            for each in sorted(folder.rglob("*"))
            if each.is_file()
        },
    }


def _examples(path: Path) -> list[dict[str, Any]]:
    """EXAMPLES after the first prompt, their ids, and the first numbers of their vectors."""
    examples = []
    with load(path) as model:
        prompt = next(iter(model.prompts.values()), "")
        for text in EXAMPLES:
            ids = model.token_ids(text, prompt=prompt)
            vector = model.encode_ids([ids])[0, :_EXAMPLE_NUMBERS]
            numbers = [round(float(number), _EXAMPLE_DIGITS) for number in vector]
            examples.append({"prompt_and_text": prompt + text, "input_ids": ids, "embedding_begins": numbers})
    return examples


def _sha256(path: Path) -> str:
    """The digest of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_READ_AT_ONCE):
            digest.update(part)
    return digest.hexdigest()
