"""Read ONNX files that nobody vouches for, and check them before anything else sees them."""
