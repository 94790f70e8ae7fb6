"""What `embgemma export-onnx` lets one choose: apart from the exporter, whose import takes the package onnx with it."""

from __future__ import annotations

from typing import Literal, get_args

# How weights are stored. int8: with activations rounded token by token; int4: in blocks of 32.
Format = Literal["float32", "int8", "int4"]

# Whose operators: those that ONNX Runtime is fastest with, or those of the ONNX standard alone.
Target = Literal["onnxruntime", "portable"]

FORMATS: tuple[Format, ...] = get_args(Format)
TARGETS: tuple[Target, ...] = get_args(Target)

# The first version of onnxruntime-extensions that was tried with a model that takes text.
LEAST_EXTENSIONS = "0.9"


def least_onnxruntime(target: Target, weights_format: Format) -> str:
    """The first version of ONNX Runtime that ran a tiny model: 1.17 knows no opset 21, 1.18 no four-bit integers."""
    return "1.19" if (target, weights_format) == ("portable", "int4") else "1.18"
