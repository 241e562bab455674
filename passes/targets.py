"""What a graph can be rewritten for."""

from __future__ import annotations

GENERIC, PRIMITIVE, ORT_CPU, ORT_CUDA = "generic", "primitive", "ort-cpu", "ort-cuda"

# generic: standard operators only, in their most telling form.
# primitive: for engines that fuse attention and normalisation by themselves.
# ort-cpu: ONNX Runtime's own operators where they are measured to be faster on a CPU.
# ort-cuda: ONNX Runtime's own operators wherever there is one.
TARGETS = (GENERIC, PRIMITIVE, ORT_CPU, ORT_CUDA)
