"""ONNX models: what ours contain, how to read them, and how ONNX Runtime runs them."""
