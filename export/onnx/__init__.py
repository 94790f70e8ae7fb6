"""Checkpoint in, ONNX model out.

export.py        the command, in order: weights, graph, file, check
onnx_weights.py  what a format stores
matrix.py        a matrix in each format
encoder.py       the forward pass, in model order
attention.py     positions, windows and attention
operators.py     where the two targets differ
linear.py        the products with weights, in each format
text.py          a tokenizer before the graph, if the model takes text
graph.py         nodes and constants as they are added
onnx_writer.py   the file, written constant by constant
bundle.py        a folder of the file and what else an app needs
verify.py        the file in ONNX Runtime compared with the float32 model
"""
