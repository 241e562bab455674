"""Normalisation over layers, groups, instances and root mean squares, from its pieces."""
