"""Facts about an exported ONNX model: inputs and outputs, versions that it needs, and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..kernels.errors import BackendError, ModelFileError, reading
from ..kernels.install import pip_install
from .onnx_backend import SENTENCE_EMBEDDING, TOKENIZER_KEY
from .onnx_choices import LEAST_EXTENSIONS, NAMES, Target, least_onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from .onnx_file import OnnxFile

STANDARD = "ai.onnx"  # another name of the domain ""
EXTENSIONS = "ai.onnx.contrib"  # the domain of the operators of onnxruntime-extensions


@dataclass(frozen=True)
class Value:
    """An input or output.

    Attributes:
        dtype: of its elements, such as "int64", "float32" or "string".
        shape: sizes, or names where callers choose the size.
    """

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class OnnxFacts:
    """Facts about a model.

    Attributes:
        inputs, outputs: by name, in order.
        opsets: versions of the operator sets by domain.
        target: which operators it uses.
        tensors: bytes of each constant by name, and of the "tokenizer".
    """

    inputs: dict[str, Value]
    outputs: dict[str, Value]
    opsets: dict[str, int]
    target: Target
    tensors: dict[str, int]

    def needs(self, weights_format: str) -> dict[str, str]:
        """The oldest versions of packages, by name, that run a model with weights of this format."""
        if weights_format not in NAMES:
            raise ModelFileError(f"the format is {weights_format!r}; this release reads {', '.join(NAMES)}")
        needs = {"onnxruntime": least_onnxruntime(self.target, weights_format)}
        if EXTENSIONS in self.opsets:
            needs["onnxruntime-extensions"] = LEAST_EXTENSIONS
        return needs


def onnx_facts(path: Path, file: OnnxFile) -> OnnxFacts:
    """Facts about the model at `path`; `file` must hold its tokenizer.

    Raises:
        BackendError: the package onnx is not installed.
        ModelFileError: the file is damaged.
    """
    with reading(path, ModelFileError):
        return _read_facts(path, file)


def _read_facts(path: Path, file: OnnxFile) -> OnnxFacts:
    """See `onnx_facts`."""
    try:
        import onnx
    except ImportError as error:
        raise BackendError(
            f"{path}: the package onnx is needed to describe an ONNX model; run `{pip_install('onnx')}`"
        ) from error
    try:
        model = onnx.load_model_from_string(file.model)
    except Exception as error:  # protobuf's own, which has no better base class
        raise ModelFileError(f"{path}: the file is damaged ({error}); export the model again") from error
    opsets = {entry.domain or STANDARD: entry.version for entry in model.opset_import}
    tensors = {tensor.name: _size(tensor) for tensor in model.graph.initializer}
    tensors["tokenizer"] = len(file.tokenizer_model or file.metadata[TOKENIZER_KEY])
    facts = OnnxFacts(
        inputs={value.name: _value(value) for value in model.graph.input},
        outputs={value.name: _value(value) for value in model.graph.output},
        opsets=opsets,
        target="portable" if [*opsets] == [STANDARD] else "onnxruntime",
        tensors=tensors,
    )
    names = (*facts.inputs, *facts.outputs, *opsets, *tensors)
    if not all(isinstance(name, str) for name in names):  # names that are not UTF-8 are bytes
        raise ModelFileError(f"{path}: the file is damaged (a name is not UTF-8); export the model again")
    if len(facts.outputs.get(SENTENCE_EMBEDDING, Value("", ())).shape) != 2:
        raise ModelFileError(f"{path}: the file is damaged (it has no {SENTENCE_EMBEDDING}); export the model again")
    return facts


def _value(info: Any) -> Value:
    """The input or output of a ValueInfoProto."""
    from onnx import TensorProto

    tensor = info.type.tensor_type
    dtype = TensorProto.DataType.Name(tensor.elem_type).lower()
    shape = tuple(dim.dim_param or int(dim.dim_value) for dim in tensor.shape.dim)
    return Value("float32" if dtype == "float" else dtype, shape)


def _size(tensor: Any) -> int:
    """Bytes of the data of a TensorProto, inside or outside of it."""
    lengths = [int(entry.value) for entry in tensor.external_data if entry.key == "length"]
    return lengths[0] if lengths else len(tensor.raw_data)
