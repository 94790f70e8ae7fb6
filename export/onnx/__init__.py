"""Checkpoint in, ONNX model out.

export.py      the command, in order: weights, graph, file, check
weights.py     what a format stores of each matrix, calibrated or rounded
encoder.py     the forward pass, in model order
attention.py   positions, windows and attention
operators.py   what the two targets say differently
linear.py      the products with weights, in each format
graph.py       nodes and constants as they are added
file.py        the file, written constant by constant
verify.py      the file run in ONNX Runtime beside the C engine
"""
