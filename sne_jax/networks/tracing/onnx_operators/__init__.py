"""The operators of ONNX, and what each does to the axes of values."""
