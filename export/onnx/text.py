"""Text in: a tokenizer before the graph, in an operator of the package onnxruntime-extensions.

Its ids are those of the Hugging Face tokenizer, with three exceptions: a text that spells out a control symbol such as
`<bos>`, a "▁" next to a space (see ../../runtime/tokenizer.py), and a character of code 0, which ends a text here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...kernels.config import EncoderConfig
from ...kernels.errors import BackendError, EmbgemmaError
from ...kernels.install import pip_install
from ...onnx.onnx_backend import ATTENTION_MASK, INPUT_IDS, SENTENCE_EMBEDDING, open_onnx_model, session_options
from ...onnx.onnx_facts import EXTENSIONS
from ...onnx.onnx_file import TOKENIZER_PREFIX
from ...tokenizer import Tokenizer
from ..checkpoint.checkpoint import Checkpoint
from .graph import INT64, Graph
from .verify import SENTENCES

Vectors = npt.NDArray[np.float32]

TEXT = "text"  # the input: (batch,) strings, their prompts included

EXTENSIONS_OPSET = 1

_SMALLEST_COSINE = 0.9999  # between the vectors of a text and of its ids, both in one padded batch

_END = int(np.iinfo(np.int64).max)  # of a slice without an end


def with_tokenizer(graph: Graph, config: EncoderConfig, tokenizer_model: bytes) -> Graph:
    """The graph after a tokenizer, which makes its inputs INPUT_IDS and ATTENTION_MASK of TEXT."""
    tokenizer = _tokenizer_graph(config, tokenizer_model)
    return Graph([*tokenizer.nodes, *graph.nodes], {**tokenizer.constants, **graph.constants}, graph.outputs)


def _tokenizer_graph(config: EncoderConfig, tokenizer_model: bytes) -> Graph:
    """The graph from TEXT to INPUT_IDS and ATTENTION_MASK, (batch, tokens) int64 each."""
    graph = Graph(prefix=TOKENIZER_PREFIX)
    best, whole = graph.integers(0), graph.small([0], np.float32)  # the best segmentation, not a random one
    yes, no = graph.small([True], np.bool_), graph.small([False], np.bool_)
    inputs = TEXT, best, whole, yes, yes, no  # add_bos, add_eos, not reverse
    flat, offsets = graph.ops("SentencepieceTokenizer", 2, *inputs, domain=EXTENSIONS, model=tokenizer_model)
    starts = graph.op("Slice", offsets, graph.integers(0), graph.integers(-1))  # (batch,) in flat, all texts end to end
    ends = graph.op("Slice", offsets, graph.integers(1), graph.integers(_END))
    lengths = graph.op("Min", graph.op("Sub", ends, starts), graph.integer(config.max_tokens))
    position = graph.op("Range", graph.integer(0), graph.op("ReduceMax", lengths, keepdims=0), graph.integer(1))
    column = graph.op("Unsqueeze", lengths, graph.integers(1))
    mask = graph.cast(graph.op("Less", position, column), INT64)  # (batch, tokens)
    index = graph.op("Add", graph.op("Unsqueeze", starts, graph.integers(1)), position)
    ids = graph.cast(graph.op("Gather", flat, graph.op("Mul", index, mask)), INT64)
    is_last = graph.op("Equal", position, graph.op("Sub", column, graph.integer(1)))
    ids = graph.op("Where", is_last, graph.integer(config.eos_id), ids)  # of texts that were cut, too
    graph.name_output(graph.op("Mul", ids, mask), INPUT_IDS)
    graph.name_output(mask, ATTENTION_MASK)
    return graph


def extensions_library() -> str:
    """The path of the library with the tokenizer's operator; raises BackendError where it is not installed."""
    try:
        import onnxruntime_extensions
    except ImportError as error:
        raise BackendError(
            f"a model that takes text needs the package onnxruntime-extensions; run `{pip_install('onnx-text')}`"
        ) from error
    return str(onnxruntime_extensions.get_library_path())


def text_session(model: Path) -> Any:
    """ONNX Runtime's session of a model that takes text."""
    import onnxruntime

    options = session_options()
    options.register_custom_ops_library(extensions_library())
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def verify_text(model: Path, source: Checkpoint) -> None:
    """Compares vectors of sentences with those of their ids; raises EmbgemmaError where they differ."""
    tokenizer = Tokenizer(source.tokenizer_model, source.config.bos_id, source.config.eos_id)
    ids = [np.array(tokenizer.encode(text, source.config.max_tokens).ids, np.int32) for text in SENTENCES]
    of_ids = open_onnx_model(model, None)[1].run(ids)
    of_texts: Vectors = text_session(model).run([SENTENCE_EMBEDDING], {TEXT: np.array(SENTENCES, object)})[0]
    cosine = float(np.sum(of_texts * of_ids, axis=1).min())
    if not cosine >= _SMALLEST_COSINE:
        raise EmbgemmaError(
            f"the exported model makes other vectors of texts than of their token ids (cosine {cosine:.6f}); try "
            "another version of onnxruntime-extensions; nothing was written"
        )
