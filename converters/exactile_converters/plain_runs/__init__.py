"""Run a network in plain ONNX Runtime, within memory, and find what its output depends on."""
