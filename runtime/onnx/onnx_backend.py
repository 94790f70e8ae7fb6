"""The backend that runs an exported ONNX model in ONNX Runtime."""

from __future__ import annotations

import base64
import itertools
import os
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.batch import check_batch, finish_vectors
from ..kernels.config import EncoderConfig
from ..kernels.cpu_quota import cpu_quota
from ..kernels.errors import BackendError, InputError, ModelFileError, reading
from ..kernels.fingerprint import model_digest
from ..kernels.install import pip_install
from ..kernels.model_file import (
    FORMAT_NAME,
    MOST_TOKENIZER_BYTES,
    ModelFile,
    check_metadata,
    check_version,
    read_prompts,
    stated_lines,
)
from ..kernels.system import utf8_path
from .onnx_file import LIBRARY, OnnxFile, read_onnx_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

INPUT_IDS, ATTENTION_MASK = "input_ids", "attention_mask"
SENTENCE_EMBEDDING = "sentence_embedding"
PAD_ID = 0  # any token: the mask is 0 there

ONNX_VERSION = "7"  # `format_version` of such models alone: it grows when they change, and not when model files do
TOKENIZER_KEY = "tokenizer_model"  # in the metadata: the sentencepiece model, compressed by zlib, in base64


# On x86 without VNNI, sums of uint8 by int8 products saturate in ONNX Runtime: cosines to float32 fell from 0.998 to
# 0.989. This option makes it multiply uint8 by uint8: with AVX-512 VNNI the same bits in 1.3 to 1.7 times the time. Why
# not store weights as uint8: it costs as much, and apps could not choose.
SESSION_CONFIG = {"session.x64quantprecision": "1"}
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_ERRORS_ONLY = 3  # of its log


def open_onnx_model(path: Path, threads: int | None) -> tuple[ModelFile, OnnxBackend]:
    """Opens a model made by `embgemma export-onnx`: returns what a model file would hold, and what runs it."""
    with reading(path, ModelFileError):
        file = read_onnx_file(path)
        model_file = describe_onnx_model(path, file)
        backend = OnnxBackend(path, model_file.config, file.model, threads)
        return replace(model_file, embedding_dim=backend.dim), backend


def describe_onnx_model(path: Path, file: OnnxFile) -> ModelFile:
    """What a model file would hold; raises ModelFileError unless `embgemma export-onnx` made the model."""
    with reading(path, ModelFileError):
        return _describe(path, file)


def _describe(path: Path, file: OnnxFile) -> ModelFile:
    """See `describe_onnx_model`."""
    if file.metadata.get("format") != FORMAT_NAME:
        raise ModelFileError(
            f"{path}: embgemma did not make this ONNX model; make one of a checkpoint with `embgemma export-onnx`"
        )
    check_version(file.metadata, ONNX_VERSION, "export it again with `embgemma export-onnx`")
    check_metadata(file.metadata)
    config = EncoderConfig.from_json(file.metadata["config"])
    prompts, default_prompt_name = read_prompts(file.metadata)
    try:
        tokenizer_model = file.tokenizer_model or _inflated(base64.b64decode(file.metadata[TOKENIZER_KEY]))
    except (KeyError, ValueError, zlib.error) as error:
        raise ModelFileError(f"the metadata lacks the tokenizer ({error}); export the model again") from error
    return ModelFile(
        path=path,
        config=config,
        scheme=file.metadata["scheme"],
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity_fn_name=file.metadata["similarity_fn_name"],
        tensors={},
        tokenizer_table=None,
        tokenizer_model=np.frombuffer(tokenizer_model, np.uint8),
        metadata=file.metadata,
        digest=model_digest(["onnx", *stated_lines(file.metadata), file.metadata.get(TOKENIZER_KEY, "")]),
    )


def _inflated(compressed: bytes) -> bytes:
    """The bytes that zlib compressed, if there are not too many for a tokenizer: few may inflate to gigabytes."""
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(compressed, MOST_TOKENIZER_BYTES)
    if not inflater.eof:
        raise ValueError(f"cut, or more than {MOST_TOKENIZER_BYTES} bytes")
    return inflated


def session_options(threads: int | None = None) -> Any:
    """Options for ONNX Runtime; `threads` is None for the number of physical cores, or the CPU quota if less."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _granted_cpus() or 0
    options.log_severity_level = _ERRORS_ONLY
    for key, value in SESSION_CONFIG.items():
        options.add_session_config_entry(key, value)
    return options


def _granted_cpus() -> int | None:
    """The CPU quota if it is less than the machine; ONNX Runtime counts cores alone."""
    quota = cpu_quota()
    return quota if quota is not None and quota < (os.cpu_count() or 1) else None


class OnnxBackend:
    """The `Backend` of ONNX Runtime on the CPU.

    Args:
        path: the model file, which ONNX Runtime maps to read the weights.
        config: of the encoder in it.
        model: the model without its weights, as `read_onnx_file` gives it.
        threads: see `session_options`.

    Attributes:
        dim: size of its vectors.

    Raises:
        BackendError: onnxruntime is not installed.
        ModelFileError: onnxruntime cannot open the model.
    """

    name = "onnx"

    def __init__(self, path: Path, config: EncoderConfig, model: bytes, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                f"{path}: an ONNX model needs the package onnxruntime; run `{pip_install('onnx')}`"
            ) from error
        options = session_options(threads)
        options.add_session_config_entry(_WEIGHTS_FOLDER, utf8_path(path.resolve().parent, LIBRARY))
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, which have no better base class
            raise ModelFileError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} cannot open the model ({error}); "
                "update onnxruntime, or export the model again"
            ) from error
        self._config = config
        self._path = path
        self.dim = int(next(o for o in self._session.get_outputs() if o.name == SENTENCE_EMBEDDING).shape[1])
        self.isa = f"onnxruntime {onnxruntime.__version__}"
        self.threads = threads or _granted_cpus() or os.cpu_count() or 1

    def encode(
        self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], dim: int, normalize: bool
    ) -> npt.NDArray[np.float32]:
        """See `Backend.encode`; other texts in the batch change a vector by float32 rounding."""
        ids, offsets = check_batch(self._config, ids, offsets, dim)
        if dim > self.dim:
            raise InputError(f"an embedding size of {dim} was asked for; this model was exported with {self.dim}")
        vectors = self.run([ids[start:end] for start, end in itertools.pairwise(offsets)])[:, :dim]
        return finish_vectors(vectors, normalize)

    def encode_tokens(self, ids: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Raises BackendError: the model gives vectors of texts alone."""
        del ids, offsets
        raise BackendError(f"{self._path}: an ONNX model gives no embeddings of tokens; load a model file instead")

    def run(self, texts: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.float32]:
        """Unit vectors (texts, self.dim) of a padded batch; raises BackendError if ONNX Runtime fails."""
        tokens = max(map(len, texts))
        ids = np.full((len(texts), tokens), PAD_ID, np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        try:
            vectors: npt.NDArray[np.float32] = self._session.run(
                [SENTENCE_EMBEDDING], {INPUT_IDS: ids, ATTENTION_MASK: mask}
            )[0]
        except Exception as error:  # see __init__
            raise BackendError(f"{self._path}: {self.isa} cannot run the model ({error})") from error
        return vectors
