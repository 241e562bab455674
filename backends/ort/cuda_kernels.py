"""Which operators ONNX Runtime's CUDA provider has kernels for, to be asked without a GPU.

From the project's own table (docs/OperatorKernels.md of microsoft/onnxruntime) and from the kernel
classes that the library of version 1.31 contains. An operator that is not here has none. One that
is here may still lack a kernel for a type or a version of its own: that, the engine's own report
says wherever there is a GPU.
"""

from __future__ import annotations

import onnx_ir as ir

# Standard operators with a kernel for float32 and float16, and integers where those matter.
_STANDARD = frozenset(
    {
        *("Abs", "Add", "And", "ArgMax", "ArgMin", "Attention", "AveragePool"),
        *("BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        *("Cast", "Ceil", "Clip", "Compress", "Concat", "ConcatFromSequence", "ConstantOfShape"),
        *("Conv", "ConvTranspose", "Cos", "CumSum", "DepthToSpace", "DequantizeLinear", "Div"),
        *("Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten"),
        *("Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm"),
        *("GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample"),
        *("HardSigmoid", "HardSwish", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN"),
        *("LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log"),
        *("LogSoftmax", "Loop", "MatMul", "MatMulInteger", "Max", "MaxPool", "Min", "Mod", "Mul"),
        *("Neg", "NonZero", "Not", "OneHot", "Or", "PRelu", "Pad", "Pow", "QuantizeLinear"),
        *("RMSNormalization", "RNN", "RandomNormal", "RandomNormalLike", "RandomUniform"),
        *("RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum"),
        *("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
        *("ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign"),
        *("RotaryEmbedding", "Round", "Scan", "ScatterElements", "ScatterND", "Selu", "Shape"),
        *("Shrink", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "Sin", "Size", "Slice"),
        *("Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub"),
        *("Sum", "Tanh", "TensorScatter", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu"),
        *("Unsqueeze", "Where", "Xor", "SequenceAt", "SequenceConstruct", "SequenceEmpty"),
        *("SequenceErase", "SequenceInsert", "SequenceLength", "Constant"),
        # Functions of ONNX, which the engine takes apart into operators above.
        *("Mish", "Swish", "Celu", "GroupNormalization", "MeanVarianceNormalization", "CastLike"),
    }
)

_MICROSOFT = frozenset(
    {
        *("Attention", "BiasGelu", "FastGelu", "FusedConv", "FusedMatMul", "Gelu", "GroupNorm"),
        *("GroupQueryAttention", "MatMulNBits", "MultiHeadAttention", "QuickGelu"),
        *("RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
        *("GatherBlockQuantized", "BiasSplitGelu", "SkipGroupNorm"),
    }
)

# Kernels for half-width types alone.
_HALF_ONLY = frozenset({"GroupQueryAttention"})
_HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def missing_kernel(node: ir.Node, dtype: ir.DataType | None) -> str | None:
    """Return why the CUDA provider cannot run `node`, as far as its table says, or None.

    Args:
        node: Any node of the graph.
        dtype: The element type of its first input, or None when that is not known.
    """
    if node.domain == "com.microsoft":
        if node.op_type not in _MICROSOFT:
            return "there is no CUDA kernel for it"
        if node.op_type in _HALF_ONLY and dtype is not None and dtype not in _HALF:
            return f"its CUDA kernels are for 16 bits, not for {dtype.name.lower()}"
        return None
    if node.domain:
        return f"the domain {node.domain!r} has no CUDA kernels"
    if node.op_type not in _STANDARD:
        return "there is no CUDA kernel for it"
    return None
