"""Read a network from a file or a module: PyTorch, Keras, ONNX, BioImage.IO."""
