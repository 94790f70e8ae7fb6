"""What `embgemma export-onnx` lets one choose: apart from the exporter, whose import takes the package onnx with it."""

from __future__ import annotations

from typing import Literal, get_args

# How weights are stored. int8: with activations rounded token by token; int4: in blocks of 32.
Format = Literal["float32", "int8", "int4"]

# What one may ask for. `balanced` and `int4` are the same: 8 bits in the head and in the layers where errors cost most.
Name = Literal["float32", "int8", "balanced", "int4"]

# Whose operators: those that ONNX Runtime is fastest with, or those of the ONNX standard alone.
Target = Literal["onnxruntime", "portable"]

FORMATS: tuple[Format, ...] = get_args(Format)
NAMES: tuple[Name, ...] = get_args(Name)
TARGETS: tuple[Target, ...] = get_args(Target)

# The first version of onnxruntime-extensions that was tried with a model that takes text.
LEAST_EXTENSIONS = "0.9"


def format_of(name: Name) -> Format:
    """The format that a name stands for."""
    return "int4" if name == "balanced" else name


def least_onnxruntime(target: Target, name: Name) -> str:
    """The first version of ONNX Runtime that ran a tiny model: 1.17 knows no opset 21, 1.18 no four-bit integers."""
    return "1.19" if (target, format_of(name)) == ("portable", "int4") else "1.18"
