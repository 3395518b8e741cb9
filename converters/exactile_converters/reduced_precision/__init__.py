"""Networks in float16 and int8: calibration, quantisation, and the form in which ONNX Runtime computes them."""
