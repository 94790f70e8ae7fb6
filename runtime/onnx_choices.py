"""What `embgemma export-onnx` lets one choose: apart from the exporter, whose import takes the package onnx with it."""

from __future__ import annotations

from typing import Literal, get_args

# How weights are stored. int8: with activations rounded token by token; int4: in blocks of 32.
Format = Literal["float32", "int8", "int4"]

# Whose operators: those that ONNX Runtime is fastest with, or those of the ONNX standard alone.
Target = Literal["onnxruntime", "portable"]

FORMATS: tuple[Format, ...] = get_args(Format)
TARGETS: tuple[Target, ...] = get_args(Target)
