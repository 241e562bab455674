"""Attention as one operator, from its products, scaling, mask and heads."""
