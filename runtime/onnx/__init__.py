"""ONNX models: what ours are, how they are read, and how ONNX Runtime runs them."""
