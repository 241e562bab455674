"""How a layer can be quantised: the names that plans, settings and reports have for it."""

from __future__ import annotations

STATIC, DYNAMIC, WEIGHT_ONLY, FLOAT = "static", "dynamic", "weight-only", "float"
LAYER_METHODS = (STATIC, DYNAMIC, WEIGHT_ONLY, FLOAT)
# What a user can ask for; "auto" chooses by target and model.
AUTO = "auto"
METHODS = (AUTO, STATIC, DYNAMIC, WEIGHT_ONLY)
# Rows of a weight that can share a scale.
BLOCKS = (16, 32, 64, 128, 256)
