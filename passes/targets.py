"""What a graph can be rewritten for."""

from __future__ import annotations

GENERIC, PRIMITIVE, ORT_CPU, ORT_CUDA = "generic", "primitive", "ort-cpu", "ort-cuda"

# generic: standard operators only, in their most telling form.
# primitive: for engines that fuse attention and normalisation by themselves.
# ort-cpu: ONNX Runtime's own operators where they are measured to be faster on a CPU.
# ort-cuda: ONNX Runtime's own operators wherever there is one.
TARGETS = (GENERIC, PRIMITIVE, ORT_CPU, ORT_CUDA)

# Those that have the operators of com.microsoft ("contrib" operators), and those that do not fuse
# by themselves.
CONTRIB = frozenset({ORT_CPU, ORT_CUDA})
NOT_PRIMITIVE = frozenset({GENERIC, *CONTRIB})
# Those that take uint8 activations with any zero point; others take int8 with zero point 0.
UINT8_ACTIVATIONS = frozenset({ORT_CPU})
