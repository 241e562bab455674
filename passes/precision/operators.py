"""What each operator does in a graph of half-width floats.

An operator that is not listed here computes in float32, whatever its inputs are: no rule says
that it may do less. The engines accumulate products, means and softmax in float32 themselves,
also where their inputs and outputs are half as wide.
"""

from __future__ import annotations

import onnx_ir as ir

from leptonc.passes.precision.half_types import BF16, HalfType
from leptonc.passes.rewriting.site import operator
from leptonc.passes.targets import ORT_CUDA

# Products of matrices: where the time goes, and why one asks for half the width.
PRODUCTS = frozenset(
    {
        *("MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention"),
        *("com.microsoft.FusedMatMul", "com.microsoft.FusedGemm", "com.microsoft.FusedConv"),
        *("com.microsoft.MultiHeadAttention", "com.microsoft.GroupQueryAttention"),
        "com.microsoft.Attention",
    }
)

# Operators that move elements and compute nothing.
MOVES = frozenset(
    {
        *("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"),
        *("Concat", "Split", "Slice", "Gather", "GatherElements", "GatherND", "Pad", "Trilu"),
        *("ScatterElements", "ScatterND", "TensorScatter", "DepthToSpace", "SpaceToDepth"),
        *("ReverseSequence", "Compress"),
    }
)

# One operation on each element, whose result is in the order of its inputs.
ELEMENTWISE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Max", "Min", "Clip", "Where", "Sum", "Mean"),
        *("Sign", "Sqrt", "Reciprocal"),
    }
)

# Activations, pooling and normalisation, whose kernels compute inside in float32.
SMOOTH = frozenset(
    {
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid"),
        *("HardSigmoid", "Tanh", "Erf", "Gelu", "HardSwish", "Swish", "Mish", "Softsign"),
        *("Softmax", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"),
        *("LayerNormalization", "RMSNormalization", "GroupNormalization"),
        *("InstanceNormalization", "BatchNormalization", "RotaryEmbedding", "Resize", "IsNaN"),
        *("SimplifiedLayerNormalization", "com.microsoft.SkipLayerNormalization"),
        *("com.microsoft.SkipSimplifiedLayerNormalization", "com.microsoft.RotaryEmbedding"),
        *("com.microsoft.Gelu", "com.microsoft.FastGelu", "com.microsoft.BiasGelu"),
        *("com.microsoft.QuickGelu", "com.microsoft.GroupNorm"),
    }
)

HALF = PRODUCTS | MOVES | ELEMENTWISE | SMOOTH

# Why others stay in float32, where the reason is worth telling.
_SUMS = "it adds up many numbers, and a sum of 16 bits stops growing or overflows"
_GROWS = "its result has another order of magnitude than its input"
_PERIODIC = "it tells large numbers apart by their last bits"
WIDE_REASONS: dict[str, str] = {
    **dict.fromkeys(
        (
            *("ReduceSum", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum"),
            *("ReduceLogSumExp", "ReduceSumSquare", "CumSum", "CumProd", "LpNormalization"),
            *("MeanVarianceNormalization", "LRN", "LpPool", "GlobalLpPool"),
        ),
        _SUMS,
    ),
    **dict.fromkeys(("Pow", "Exp", "Log", "Softplus", "LogSoftmax", "Sinh", "Cosh"), _GROWS),
    **dict.fromkeys(("Sin", "Cos", "Tan", "Range", "Mod", "Round", "Floor", "Ceil"), _PERIODIC),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), "a recurrence adds its rounding up at each step"),
    **dict.fromkeys(
        ("If", "Loop", "Scan"),
        "values go in and out of its bodies in float32; inside they are half",
    ),
    **dict.fromkeys(
        ("TopK", "ArgMax", "ArgMin", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
        "rounding would make ties, and change what it chooses",
    ),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), "scales are float32"),
}

# Operators whose neighbours stay in float32 with them: what comes out of them may be far outside
# of what half the width holds, until it is divided or combined with something that is not.
CHAIN_STARTS = frozenset(
    name for name, reason in WIDE_REASONS.items() if reason in (_SUMS, _GROWS, _PERIODIC)
)

# Inputs that stay in float32 beside half-width ones, by operator.
_FLOAT32_INPUTS: dict[str, frozenset[int]] = {"Resize": frozenset({1, 2})}
# Outputs that stay in float32: the statistics of normalisation.
_FLOAT32_OUTPUTS: dict[str, frozenset[int]] = {
    "LayerNormalization": frozenset({1, 2}),
    "SimplifiedLayerNormalization": frozenset({1}),
    "com.microsoft.SkipLayerNormalization": frozenset({1, 2}),
    "com.microsoft.SkipSimplifiedLayerNormalization": frozenset({1, 2}),
}
# ONNX Runtime's GroupNorm takes its scale and bias in float32.
_FLOAT32_INPUTS["com.microsoft.GroupNorm"] = frozenset({1, 2})

# The opset from which ONNX lets an operator compute in bfloat16; 13 for those that are not named.
BF16_SINCE: dict[str, int] = {
    **dict.fromkeys(("Relu", "Add", "Sub", "Mul", "Div", "Trilu", "BatchNormalization"), 14),
    **dict.fromkeys(("Where", "LeakyRelu", "PRelu", "ScatterElements", "ScatterND"), 16),
    **dict.fromkeys(("LayerNormalization",), 17),
    **dict.fromkeys(("Resize",), 18),
    **dict.fromkeys(("Gelu", "IsNaN"), 20),
    **dict.fromkeys(("GroupNormalization",), 21),
    **dict.fromkeys(
        (
            *("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalMaxPool"),
            *("GlobalAveragePool", "InstanceNormalization", "Elu", "Selu", "ThresholdedRelu"),
            *("HardSigmoid", "HardSwish", "Mish", "Softsign"),
        ),
        22,
    ),
    **dict.fromkeys(("Attention", "RMSNormalization", "RotaryEmbedding"), 23),
    **dict.fromkeys(("Swish", "TensorScatter"), 24),
    # Not in any version that engines read.
    **dict.fromkeys(("Einsum", "Celu"), 1000),
}

# Kernels that the library of ONNX Runtime's CUDA provider does not contain (version 1.31).
_CUDA_LACKS: dict[str, frozenset[str]] = {
    "fp16": frozenset({"com.microsoft.FusedConv", "com.microsoft.FusedGemm", "Celu", "Mish"}),
    "bf16": frozenset(
        {
            *("com.microsoft.FusedConv", "com.microsoft.FusedGemm", "Celu", "Mish", "Einsum"),
            *("ConvTranspose", "DepthToSpace", "SpaceToDepth", "Elu", "Selu", "ThresholdedRelu"),
            *("Softsign", "PRelu", "LeakyRelu", "Clip", "Pad", "Reciprocal", "Resize"),
            *("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"),
            *("InstanceNormalization", "BatchNormalization", "com.microsoft.GroupNorm"),
        }
    ),
}


def refusal(node: ir.Node, half: HalfType, opset: int, target: str) -> str | None:
    """Return why `node` stays in float32, or None when it may compute in `half`.

    Args:
        node: Any node.
        half: The type.
        opset: Of the standard domain, as far as the graph can be raised.
        target: One of `leptonc.passes.TARGETS`.
    """
    name = operator(node)
    if name not in HALF:
        return WIDE_REASONS.get(name, "no rule says that it computes well in 16 bits")
    if half is BF16 and not node.domain and opset < BF16_SINCE.get(name, 13):
        return f"ONNX has no bfloat16 {name} at opset {opset}"
    if target == ORT_CUDA and name in _CUDA_LACKS[half.name]:
        return f"ONNX Runtime has no {half.dtype.name.lower()} kernel for it on CUDA"
    return None


def half_input(node: ir.Node, index: int) -> bool:
    """Whether a float input of a half-width `node` is half as wide as well."""
    return index not in _FLOAT32_INPUTS.get(operator(node), frozenset())


def half_output(node: ir.Node, index: int) -> bool:
    """Whether a float output of a half-width `node` is half as wide as well."""
    return index not in _FLOAT32_OUTPUTS.get(operator(node), frozenset())
