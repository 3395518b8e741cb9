"""Operators that ONNX Runtime writes into models that it optimises, as the operators of ONNX that they stand for."""
