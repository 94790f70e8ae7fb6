"""The command `embgemma info`: what a model file or an ONNX model holds, and what it runs on here."""

from __future__ import annotations

import json
import platform
import re
import sys
from typing import TYPE_CHECKING

from ..find import IN_THE_BOX, opening
from ..kernels import available_backends, create_backend
from ..kernels.embedding_rows import table_format
from ..kernels.errors import InputError, printable
from ..kernels.fingerprint import fingerprint
from ..kernels.layout import DTYPE_FORMATS
from ..kernels.model_file import ORIGIN, VOCABULARY, ModelFile, read_model_file
from ..kernels.native import check_model, instruction_sets, library_problem, load_library
from ..model import load
from ..onnx.onnx_backend import SENTENCE_EMBEDDING, describe_onnx_model
from ..onnx.onnx_facts import OnnxFacts, onnx_facts
from ..onnx.onnx_file import read_onnx_file
from ..source import ONNX_SUFFIX
from .signals import check_standard_output

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import TypeAlias

    from ..kernels.backend import Backend

    Fact: TypeAlias = tuple[str, ...]  # a label and its lines

MEGABYTE = 1e6
MOST_SCRIPTS = 8  # of the vocabulary, that are named

# Parts of a model by the first word of a tensor's name after `layers.N.`; constants of ONNX models have the same names.
PARTS = {
    "embedding table": ("embedding",),
    "attention": ("qkv", "o"),
    "feed-forward": ("gate_up", "down"),
    "head": ("head",),
}


def run_info(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    check_standard_output()
    name = IN_THE_BOX if arguments.model is None else arguments.model
    with opening(name, scheme=arguments.scheme, revision=arguments.revision) as path:
        return _run_info(path, arguments)


def _run_info(path: Path, arguments: argparse.Namespace) -> int:
    """Runs the command for a file."""
    if path.suffix == ONNX_SUFFIX:
        return _run_onnx_info(path, arguments)
    model_file = read_model_file(path, every_byte=arguments.check)
    coverage = _coverage_facts(model_file, arguments)
    _print_facts(_file_facts(model_file))  # also if nothing can run it
    _print_facts(coverage)
    if arguments.check:
        if library_problem() is None:
            check_model(path)
        _print_facts([("checked", "every byte is as written")])
    backend = create_backend(model_file, backend=arguments.backend, threads=arguments.threads, isa=arguments.isa)
    _print_facts(_engine_facts(backend))
    return 0


def _run_onnx_info(path: Path, arguments: argparse.Namespace) -> int:
    """Runs the command for an ONNX model."""
    if arguments.check:
        raise InputError(f"{path}: an ONNX model has no checksum, so --check cannot tell whether it is as written")
    if arguments.coverage is not None:
        raise InputError(f"{path}: --coverage is for model files, *.safetensors")
    file = read_onnx_file(path, with_tokenizer=True)
    model_file = describe_onnx_model(path, file)
    _print_facts(_onnx_facts(model_file, onnx_facts(path, file)))
    model = load(path, backend=arguments.backend, threads=arguments.threads, isa=arguments.isa)
    _print_facts([("in use", f"{model.backend}, {model.isa}, threads {model.threads}")])
    return 0


def _print_facts(facts: Iterable[Fact]) -> None:
    label_width = 12
    for label, *lines in facts:
        for i, line in enumerate(lines):
            sys.stdout.write(f"{label if i == 0 else '':<{label_width}}{printable(line)}".rstrip() + "\n")


def _file_facts(model_file: ModelFile) -> Iterator[Fact]:
    """What a model file holds: labels, each with its lines."""
    yield "file", f"{model_file.path} ({_megabytes(model_file.path.stat().st_size)})"
    yield "made by", f"{model_file.metadata['producer']}, scheme {model_file.scheme}"
    if ORIGIN in model_file.metadata:
        yield "of", model_file.metadata[ORIGIN]
    yield from _encoder_facts(model_file)
    yield from _vocabulary_facts(model_file)
    yield from _embedding_facts(model_file, model_file.config.hidden)
    yield _size_fact(_sizes(model_file))
    yield _prompt_fact(model_file)


def _onnx_facts(model_file: ModelFile, facts: OnnxFacts) -> Iterator[Fact]:
    """What an ONNX model holds, in the same form."""
    path = model_file.path
    yield "file", f"{path} ({_megabytes(path.stat().st_size)})"
    yield "made by", f"{model_file.metadata['producer']}, format {model_file.scheme}, target {facts.target}"
    yield from _encoder_facts(model_file)
    yield from _embedding_facts(model_file, int(facts.outputs[SENTENCE_EMBEDDING].shape[1]))
    for label, values in (("inputs", facts.inputs), ("outputs", facts.outputs)):
        yield label, *(f"{k:<18} {value.dtype:<7} ({', '.join(map(str, value.shape))})" for k, value in values.items())
    needs = facts.needs(model_file.scheme).items()
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts.opsets.items())
    needed = ", ".join(f"{package} {version} or newer" for package, version in needs)
    yield "needs", needed, f"operator sets {opsets}"
    yield _size_fact(_onnx_sizes(facts))
    yield _prompt_fact(model_file)


def _encoder_facts(model_file: ModelFile) -> Iterator[Fact]:
    config = model_file.config
    yield "model", f"{config.layers} layers, hidden {config.hidden}, feed-forward {config.ffn}, {config.vocab:,} pieces"
    heads = f"{config.heads} heads of {config.head_dim}, {config.kv_heads} for keys and values"
    full = ", ".join(map(str, config.full_attention_layers)) or "none"
    yield "attention", heads, f"{config.window} tokens to either side; all tokens in layers {full}"
    yield "texts", f"up to {config.max_tokens} tokens"


def _vocabulary_facts(model_file: ModelFile) -> Iterator[Fact]:
    """How many pieces a file keeps, in all and by script; nothing if it keeps all."""
    if VOCABULARY not in model_file.metadata or model_file.tokenizer_table is None:
        return
    from ..export.vocabulary.scripts import count_scripts

    pieces, scripts = count_scripts(model_file.tokenizer_table)
    yield (
        "vocabulary",
        f"{pieces:,} of {model_file.metadata[VOCABULARY]} pieces are kept; others are cut into smaller ones",
        ", ".join(f"{script} {count:,}" for script, count in scripts.most_common(MOST_SCRIPTS)),
    )


def _coverage_facts(model_file: ModelFile, arguments: argparse.Namespace) -> list[Fact]:
    """How much of some texts a file covers."""
    if arguments.coverage is None:
        if arguments.whole is not None:
            raise InputError("--whole is for --coverage, which names texts; leave it out, or give both")
        return []
    if arguments.whole is None:
        raise InputError("--coverage needs the whole vocabulary; give the model file that has it by --whole")
    from ..export.restrict_file import coverage_of
    from ..export.vocabulary.texts import text_files

    with opening(arguments.whole) as path:
        coverage = coverage_of(model_file, read_model_file(path), text_files(arguments.coverage))
    return [("coverage", str(coverage))]


def _embedding_facts(model_file: ModelFile, dim: int) -> Iterator[Fact]:
    yield "embeddings", f"{dim} dimensions or fewer, compared by {model_file.similarity_fn_name}"
    name = fingerprint(model_file.digest, dim, model_file.config.max_tokens, "")
    yield "fingerprint", f"{name} without a prompt"


def _size_fact(sizes: Mapping[str, tuple[int, str]]) -> Fact:
    return "sizes", *(f"{part:<16} {_megabytes(size):>10}  {formats}" for part, (size, formats) in sizes.items())


def _prompt_fact(model_file: ModelFile) -> Fact:
    default = model_file.default_prompt_name
    quoted = {name: json.dumps(prompt, ensure_ascii=False) for name, prompt in model_file.prompts.items()}
    lines = [f"{name:<24} {prompt}{'  (default)' if name == default else ''}" for name, prompt in quoted.items()]
    return "prompts", *(lines or ["none"])


def _engine_facts(backend: Backend) -> Iterator[Fact]:
    """What runs the model here."""
    backends = available_backends()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield "platform", f"{platform.system()} {platform.release()}, {platform.machine()}, {python}"
    yield "backends", ", ".join(backends)
    if "native" in backends:
        yield "library", str(load_library().path)
        sets = [isa.name for isa in instruction_sets() if isa.supported]
        yield "", f"instruction sets of native on this CPU, best first: {', '.join(sets)}"
    yield "in use", f"{backend.name}, instruction set {backend.isa}, threads {backend.threads}"


def _sizes(model_file: ModelFile) -> dict[str, tuple[int, str]]:
    """Bytes and formats of each part of the model, codebooks, bits of rows and scales included."""
    sizes = dict.fromkeys((*PARTS, "norms", "tokenizer"), (0, ""))
    for name, tensor in model_file.tensors.items():
        part = _part(name, "norms")
        size, formats = sizes[part]
        if name.endswith(".weight"):
            stored = DTYPE_FORMATS[tensor.dtype]
            formats = formats if stored in formats.split(", ") else f"{formats}, {stored}".removeprefix(", ")
        sizes[part] = (size + tensor.nbytes, formats)
    sizes["embedding table"] = (sizes["embedding table"][0], table_format(model_file.tensors))
    tokenizers = (model_file.tokenizer_table, model_file.tokenizer_model)
    sizes["tokenizer"] = (sum(tensor.nbytes for tensor in tokenizers if tensor is not None), "")
    return sizes


def _onnx_sizes(facts: OnnxFacts) -> dict[str, tuple[int, str]]:
    """Bytes of each part of an ONNX model, scales included; formats are those of the model."""
    sizes = dict.fromkeys((*PARTS, "tokenizer", "others"), 0)
    for name, size in facts.tensors.items():
        sizes[name if name == "tokenizer" else _part(name, "others")] += size
    return {part: (size, "") for part, size in sizes.items()}


def _part(name: str, otherwise: str) -> str:
    """The part of the model that a tensor of this name belongs to."""
    word = re.sub(r"^layers\.\d+\.", "", name).split(".")[0]
    return next((part for part, words in PARTS.items() if word in words), otherwise)


def _megabytes(size: int) -> str:
    return f"{size / MEGABYTE:.1f} MB"
