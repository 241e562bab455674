"""Runs a variant on ONNX Runtime, on the CPU or a GPU."""
