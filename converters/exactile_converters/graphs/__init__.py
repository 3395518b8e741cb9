"""ONNX-to-ONNX rewrites."""
