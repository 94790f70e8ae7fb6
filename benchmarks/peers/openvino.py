"""OpenVINO on its CPU plugin: bfloat16, 8-bit weights, and weights and activations in 8 bits by NNCF."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...export.checkpoint.checkpoint import Checkpoint, read_checkpoint
from ...kernels.errors import EmbgemmaError
from ..harness.cache import cached
from ..harness.limit import LIMIT_VARIABLE, ONEDNN_ISAS
from ..harness.sentences import sentence_ids
from ..harness.workload import Ids
from . import Encoder, Variant, Vectors

PACKAGES = {"openvino": "openvino", "nncf": "nncf"}
WITHOUT_BFLOAT16 = set(ONEDNN_ISAS.values())  # what is not 8 bits is float32 then
SOURCES = ("benchmarks/peers/openvino*.py", "benchmarks/harness/sentences.*", "export/checkpoint/*.py")


def prepare(checkpoint: Path, folder: Path) -> list[Variant]:
    """The float32 model, and what NNCF makes of it; all run with bfloat16 inside where that is the CPU's fastest."""
    source = read_checkpoint(checkpoint)

    def made(name: str, make: Callable[[Path], None]) -> Path:
        return cached(folder / name / "model.xml", make, SOURCES, PACKAGES)

    exact = made("openvino-float32", lambda path: _write_float32(source, path))
    weights = made("openvino-int8-weights", lambda path: _compress(exact, path))
    full = made("openvino-int8", lambda path: _quantize(source, exact, path))
    return [
        Variant("openvino", "float32", exact, {"precision": "f32"}),
        Variant("openvino", "bfloat16", exact, {"precision": "bf16"}),
        Variant("openvino", "int8 weights", weights, {"precision": "bf16"}),
        Variant("openvino", "int8 (NNCF)", full, {"precision": "bf16"}),
    ]


def _write_float32(source: Checkpoint, path: Path) -> None:
    import openvino

    from .openvino_graph import build_model

    openvino.save_model(build_model(source), path, compress_to_fp16=False)


def _compress(exact: Path, path: Path) -> None:
    """Weights and table in 8 bits; activations stay as they are."""
    import nncf
    import openvino

    openvino.save_model(nncf.compress_weights(openvino.Core().read_model(exact)), path, compress_to_fp16=False)


def _quantize(source: Checkpoint, exact: Path, path: Path) -> None:
    """Weights and activations in 8 bits, activations in ranges found on the sentences.

    The first layer's projections keep float activations: with outliers of the embeddings in 8 bits the mean cosine is
    0.85, not 0.99, and float costs no measurable time. Smoothing of 0.5 is more exact than the default of 0.95, and
    bias correction changes nothing.
    """
    import nncf
    import openvino
    from nncf.quantization import advanced_parameters as advanced

    from .openvino_graph import HEAD, UNIT

    inputs = [ids.astype(np.int64) for ids in sentence_ids(source)]
    quantized = nncf.quantize(
        openvino.Core().read_model(exact),
        nncf.Dataset(inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(inputs),
        ignored_scope=nncf.IgnoredScope(names=["layers.0.q", "layers.0.k", "layers.0.v", HEAD, UNIT]),
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(matmul=0.5), disable_bias_correction=True
        ),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def open_variant(variant: Variant, threads: int | None) -> Encoder:
    """A model compiled for lowest latency, and its one request."""
    import openvino

    precision = variant.options["precision"]
    if precision == "bf16" and os.environ.get(LIMIT_VARIABLE) in WITHOUT_BFLOAT16:
        if variant.name == "bfloat16":
            raise EmbgemmaError("there is no bfloat16 on this instruction set")
        precision = "f32"
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads or 0,
    }
    model: Any = openvino.Core().compile_model(str(variant.path), "CPU", settings)
    request = model.create_infer_request()

    def encode(ids: Ids) -> Vectors:
        return np.array(request.infer([ids.astype(np.int64)], share_inputs=True)[model.output(0)], np.float32)

    return encode
