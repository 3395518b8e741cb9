"""Rewrite operators that ONNX Runtime's optimiser writes into models as the ONNX operators that they replaced."""
