"""The command `embgemma info`: what a model file holds, and what it runs on here."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from .kernels import available_backends, create_backend
from .kernels.layout import DTYPE_FORMATS
from .kernels.native import instruction_sets
from .model_file import ModelFile, read_model_file

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from .kernels.backend import Backend

MEGABYTE = 1e6

# Parts of the model by how the names of their tensors begin, once `layers.N.` is taken off.
PARTS = {
    "embedding table": ("embedding.",),
    "attention": ("qkv.", "o."),
    "feed-forward": ("gate_up.", "down."),
    "head": ("head.",),
}


def run_info(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    model_file = read_model_file(arguments.model)
    _print_facts(_file_facts(model_file))  # even where nothing can run it
    backend = create_backend(
        model_file.config,
        model_file.tensors,
        backend=arguments.backend,
        threads=arguments.threads,
        isa=arguments.isa,
    )
    _print_facts(_engine_facts(backend))
    return 0


def _print_facts(facts: Iterator[tuple[str, str]]) -> None:
    label_width = 12
    for label, text in facts:
        sys.stdout.write(f"{label:<{label_width}}{text}".rstrip() + "\n")


def _file_facts(model_file: ModelFile) -> Iterator[tuple[str, str]]:
    """What the file holds: labels and texts, the label empty in lines that go on."""
    config = model_file.config
    yield "file", f"{model_file.path} ({_megabytes(model_file.path.stat().st_size)})"
    yield "made by", f"{model_file.metadata['producer']}, scheme {model_file.scheme}"
    yield "model", f"{config.layers} layers, hidden {config.hidden}, feed-forward {config.ffn}, {config.vocab} tokens"
    yield "attention", f"{config.heads} heads of {config.head_dim}, {config.kv_heads} for keys and values"
    full = ", ".join(map(str, config.full_attention_layers)) or "none"
    yield "", f"{config.window} tokens to either side; all tokens in layers {full}"
    yield "texts", f"up to {config.max_tokens} tokens"
    yield "embeddings", f"{config.hidden} dimensions or fewer, compared by {model_file.similarity_fn_name}"
    label = "sizes"
    for part, (size, formats) in _sizes(model_file).items():
        yield label, f"{part:<16} {_megabytes(size):>10}  {formats}".rstrip()
        label = ""
    label = "prompts"
    for name, prompt in model_file.prompts.items():
        default = "  (default)" if name == model_file.default_prompt_name else ""
        yield label, f"{name:<24} {json.dumps(prompt, ensure_ascii=False)}{default}"
        label = ""
    if not model_file.prompts:
        yield label, "none"


def _engine_facts(backend: Backend) -> Iterator[tuple[str, str]]:
    """What the model runs on here."""
    backends = available_backends()
    yield "backends", ", ".join(backends)
    if "native" in backends:
        sets = [isa.name for isa in instruction_sets() if isa.supported]
        yield "", f"instruction sets of native on this CPU, best first: {', '.join(sets)}"
    yield "in use", f"{backend.name}, instruction set {backend.isa}, threads {backend.threads}"


def _sizes(model_file: ModelFile) -> dict[str, tuple[int, str]]:
    """Bytes and formats of each part of the model, scales included."""
    sizes = dict.fromkeys((*PARTS, "norms", "tokenizer"), (0, ""))
    for name, tensor in model_file.tensors.items():
        local = name.split(".", 2)[2] if name.startswith("layers.") else name
        part = next((part for part, prefixes in PARTS.items() if local.startswith(prefixes)), "norms")
        size, formats = sizes[part]
        if name.endswith(".weight"):
            stored = DTYPE_FORMATS[tensor.dtype]
            formats = formats if stored in formats.split(", ") else f"{formats}, {stored}".removeprefix(", ")
        sizes[part] = (size + tensor.nbytes, formats)
    tokenizers = (model_file.tokenizer_table, model_file.tokenizer_model)
    sizes["tokenizer"] = (sum(tensor.nbytes for tensor in tokenizers if tensor is not None), "")
    return sizes


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"
