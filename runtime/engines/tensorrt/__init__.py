"""Runs a variant on TensorRT, from the check of its plan to the lanes it runs in."""
