"""The choices of `embgemma export-onnx`; not in the exporter, since importing that needs the package onnx."""

from __future__ import annotations

from typing import Literal, get_args

# Storage of weights. int8 also rounds activations, token by token; int4 has blocks of 32.
Format = Literal["float32", "int8", "int4"]

# Names of formats. `balanced` and `int4` are the same: 8 bits in the head and in the layers where errors cost most.
Name = Literal["float32", "int8", "balanced", "int4"]

# Operators: those that are fastest in ONNX Runtime, or those of the ONNX standard only.
Target = Literal["onnxruntime", "portable"]

FORMATS: tuple[Format, ...] = get_args(Format)
NAMES: tuple[Name, ...] = get_args(Name)
TARGETS: tuple[Target, ...] = get_args(Target)

# The oldest version of onnxruntime-extensions that was tested with a model that takes text.
LEAST_EXTENSIONS = "0.9"


def format_of(name: Name) -> Format:
    """The format that a name stands for."""
    return "int4" if name == "balanced" else name


def least_onnxruntime(target: Target, name: Name) -> str:
    """The oldest ONNX Runtime that ran a tiny model: 1.17 lacks opset 21, 1.18 lacks four-bit integers."""
    return "1.19" if (target, format_of(name)) == ("portable", "int4") else "1.18"
