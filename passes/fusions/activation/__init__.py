"""Activations that exporters write out in pieces: GELU, Swish, Mish and their kin."""
