"""Builds for ONNX Runtime, on CPUs and NVIDIA GPUs."""
