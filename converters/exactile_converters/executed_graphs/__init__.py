"""Networks of reduced precision as ONNX Runtime computes them on this CPU."""
