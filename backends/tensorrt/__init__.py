"""Builds plans of TensorRT, in a process of their own and without a GPU."""
