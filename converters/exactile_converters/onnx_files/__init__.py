"""Read ONNX files safely: their size, structure and weights are checked before use."""
