"""Checkpoint in, ONNX model out.

export.py      the command, in order: weights, graph, file, check
weights.py     what a format stores
matrix.py      a matrix in each format
encoder.py     the forward pass, in model order
attention.py   positions, windows and attention
operators.py   what the two targets say differently
linear.py      the products with weights, in each format
text.py        the tokenizer before it, if the model is to take text
graph.py       nodes and constants as they are added
file.py        the file, written constant by constant
bundle.py      a folder of the file and what an app needs beside it
verify.py      the file run in ONNX Runtime beside the C engine
"""
