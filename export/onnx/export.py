"""Checkpoint → ONNX model: one file, checked before it takes its name."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from ... import __version__
from ...inputs import check_integer, check_path
from ...kernels.errors import CheckpointError, InputError
from ...kernels.system import utf8_path
from ...notices import Progress, tell
from ...onnx.onnx_backend import ATTENTION_MASK, INPUT_IDS, ONNX_VERSION, SENTENCE_EMBEDDING, TOKENIZER_KEY
from ...onnx.onnx_choices import NAMES, TARGETS, Name, Target, format_of
from ...onnx.onnx_facts import EXTENSIONS
from ...onnx.onnx_file import LIBRARY
from ...output_file import check_destination, check_room, keep_inputs, whole_file
from ..check import nothing_written
from ..checkpoint.checkpoint import Checkpoint, read_checkpoint
from ..needs import BUILDING, CHECKING, READING
from ..part import Part, part_of
from ..quantise.calibration import calibration_files, read_calibration
from ..tokenizer.tokenizer_table import build_tokenizer_table
from ..vocabulary.keep import Keep
from ..write import model_metadata
from .encoder import LAST_HIDDEN_STATE, encoder_graph
from .graph import Graph
from .onnx_weights import EncoderWeights, export_needs, read_weights
from .onnx_writer import write_file
from .operators import opsets
from .text import EXTENSIONS_OPSET, TEXT, extensions_library, verify_text, with_tokenizer
from .verify import Verification, verify

IR_VERSION = 10  # of ONNX 1.16, which brought opset 21


@dataclass(frozen=True)
class Exported:
    """An export.

    Attributes:
        model: the file.
        verification: how it compares with the float32 model.
        operators_config: what a reduced build of ONNX Runtime must keep, as its build script reads it.
        source: the checkpoint that was exported.
        part: all of its vocabulary, or the part that was kept.
    """

    model: Path
    verification: Verification
    operators_config: str
    source: Checkpoint
    part: Part


def export_onnx(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    weights_format: Name = "int8",
    *,
    target: Target = "onnxruntime",
    truncate_dim: int | None = None,
    last_hidden_state: bool = False,
    for_pooling: bool = False,
    text: bool = False,
    calibrated: bool = True,
    calibration: str | os.PathLike[str] | None = None,
    sliding_window: int | None = None,
    base: str | os.PathLike[str] | None = None,
    keep: Keep | None = None,
    force: bool = False,
    progress: Progress | None = None,
    replaces: Iterable[Path] = (),
) -> Exported:
    """Writes the ONNX model of a checkpoint, and checks it in ONNX Runtime before it takes its name.

    Args:
        checkpoint: folder of a checkpoint as sentence-transformers lays it out.
        output: the file to write; it appears complete and checked, or not at all.
        weights_format: "float32", "int8" or "balanced"; "int4" is an older name of "balanced".
        target: "onnxruntime" uses its own fused operators; "portable" those of the ONNX standard alone.
        truncate_dim: size of the vectors, a Matryoshka size: the model then computes no more.
        last_hidden_state: whether the model also gives the vector of each token.
        for_pooling: whether it gives instead, under that name, vectors of tokens whose mean is the text's vector before
            it gets length 1, for libraries that pool.
        text: whether the model takes texts, by an operator of onnxruntime-extensions, instead of token ids.
        calibrated, calibration, sliding_window, base, keep, progress: see `convert`.
        force: whether to replace a file that exists.
        replaces: what the caller will replace; nothing is done if the checkpoint or its base lies there.

    Raises:
        CheckpointError: the checkpoint is incomplete, damaged, or of another architecture.
        InputError: the output exists or cannot be written, or an argument is unknown or out of range.
        BackendError: text is asked for, and onnxruntime-extensions is not installed.
        EmbgemmaError: the exported model does not compute what it should.
        OSError: the disk is full.
    """
    progress = progress or Progress(quiet=True)
    output = check_path("output", output)
    for name, value, choices in (("format", weights_format, NAMES), ("target", target, TARGETS)):
        if value not in choices:
            raise InputError(f"unknown {name} {value!r}; expected one of {', '.join(choices)}")
    calibrated = calibrated and weights_format != "float32"
    texts = calibration_files(calibration, used=calibrated)
    check_destination(output, force=force)
    utf8_path(output, LIBRARY)
    if text:
        if target != "onnxruntime":
            raise InputError(f"target {target!r} has no operator that takes text; take target 'onnxruntime'")
        extensions_library()  # before minutes of work, not after
    progress.begin(READING)
    source = read_checkpoint(checkpoint, sliding_window=sliding_window, base=base)
    for place in (output, *replaces):
        keep_inputs(place, [*source.files(), *texts, *(() if keep is None else keep.texts)])
    if source.config.kv_heads != 1:
        raise CheckpointError(f"{source.folder}: it has {source.config.kv_heads} key/value heads; ONNX export takes 1")
    dim = source.config.hidden
    if truncate_dim is not None:
        dim = check_integer("truncate_dim", truncate_dim, 1, dim)
    in_int4 = format_of(weights_format) == "int4"
    batch = read_calibration(source, calibration, short_sentences=in_int4) if calibrated else None
    needs = export_needs(source.config, format_of(weights_format), batch)
    check_room(output, needs.disk)
    progress.plan(needs.seconds, f"exporting {weights_format} {needs}")
    part = _part(source, keep, progress)
    weights = read_weights(source, format_of(weights_format), batch, progress).with_dim(dim).with_part(part)
    shown = replace(source, config=part.config, tokenizer_model=part.model)  # what the model takes
    graph = encoder_graph(weights, target, "shares" if for_pooling else "hidden" if last_hidden_state else None)
    versions = opsets(target)
    if text:
        graph = with_tokenizer(graph, part.config, part.model)
        versions[EXTENSIONS] = EXTENSIONS_OPSET
    total = sum(constant.size_bytes for constant in graph.constants.values())
    with whole_file(output, force=force) as file:
        progress.begin("writing", total, "B")
        model = _model(graph, weights, versions, for_pooling=for_pooling)
        metadata = _metadata(shown, weights_format, part.metadata, text=text)
        write_file(file, model, metadata, graph.constants.values(), progress.advance)
        file.flush()
        written = Path(file.name)
        progress.begin(CHECKING)
        with nothing_written(written, output):
            verification = verify(written, source, part, format_of(weights_format), calibrated=calibrated)
            if text:
                verify_text(written, shown)
    return Exported(output, verification, _operators_config(graph, versions), source, part)


def _part(source: Checkpoint, keep: Keep | None, progress: Progress) -> Part:
    """The part of the vocabulary that is to be kept; what the engine needs is built only to choose it."""
    if keep is None:
        return Part(source.config, source.tokenizer_model, np.zeros(0, np.uint8))
    progress.begin(BUILDING)
    part = part_of(source, build_tokenizer_table(source.tokenizer_model), keep, progress)
    if not progress.quiet:
        tell(str(part.kept))
    return part


def _operators_config(graph: Graph, versions: Mapping[str, int]) -> str:
    """Lines of domain;opset;operators, as onnxruntime.ai, "Reduced operator config file", has them."""
    kinds: dict[str, set[str]] = {}
    for node in graph.nodes:
        kinds.setdefault(node.domain, set()).add(node.op_type)
    return "".join(
        f"{domain or 'ai.onnx'};{versions[domain]};{','.join(sorted(found))}\n" for domain, found in kinds.items()
    )


def _model(graph: Graph, weights: EncoderWeights, versions: Mapping[str, int], *, for_pooling: bool) -> ModelProto:
    """The model without its constants and its metadata."""
    texts, tokens = "batch_size", "sequence_length"
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [texts, tokens]) for name in (INPUT_IDS, ATTENTION_MASK)
    ]
    text = [helper.make_tensor_value_info(TEXT, TensorProto.STRING, [texts])] if EXTENSIONS in versions else []
    shapes: dict[str, list[str | int]] = {
        SENTENCE_EMBEDDING: [texts, weights.dim],
        LAST_HIDDEN_STATE: [texts, tokens, weights.dim if for_pooling else weights.config.hidden],
    }
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in graph.outputs]
    return ModelProto(
        ir_version=IR_VERSION,
        producer_name="embgemma",
        producer_version=__version__,
        opset_import=[helper.make_opsetid(domain, version) for domain, version in versions.items()],
        graph=GraphProto(
            name="embgemma", node=graph.nodes, input=text or ids, output=outputs, value_info=ids if text else []
        ),
    )


def _metadata(source: Checkpoint, weights_format: Name, others: Mapping[str, str], *, text: bool) -> dict[str, str]:
    """The metadata of a model file, but of a version of its own, and the tokenizer unless the graph has it."""
    tokenizer = {} if text else {TOKENIZER_KEY: base64.b64encode(zlib.compress(source.tokenizer_model, 9)).decode()}
    return model_metadata(
        source.config,
        weights_format,
        prompts=source.prompts,
        default_prompt_name=source.default_prompt_name,
        similarity_fn_name=source.similarity_fn_name,
        others={**tokenizer, **others},
        version=ONNX_VERSION,
    )
