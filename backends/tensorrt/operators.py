"""What TensorRT takes, and what to do about each node that it does not.

The operators are those that the parser of TensorRT for RTX 1.7 says it knows (its
`supports_operator`), less those that it then refuses. The rules are refusals that were met when
graphs were built, looked at here first: some of them crash the builder, and others come back
without the name of a node.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from leptonc.backends.abilities import Refused
from leptonc.passes.facts.facts import Facts
from leptonc.passes.graph.structure import all_nodes

_NAMES = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
BatchNormalization BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape
Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal
Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If
InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min
Mish Mod Mul Neg NonMaxSuppression Not OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization
RNN RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1
ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT Scan
Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh TensorScatter
ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
CONTRIB_OPERATORS = frozenset(
    {
        *("Gelu", "SkipSimplifiedLayerNormalization", "SimplifiedLayerNormalization"),
        *("RotaryEmbedding", "MultiHeadAttention"),
    }
)
_QUANTISED = "use QuantizeLinear and DequantizeLinear around a plain operator instead"
_ADVICE = {
    **dict.fromkeys(
        ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul"),
        _QUANTISED,
    ),
    "NonZero": "compute with a mask and torch.where instead of indices",
    "Unique": "compute with sizes that are known, outside the model if need be",
    "Compress": "compute with a mask and torch.where instead",
}
_WRITE_OTHERWISE = "write that part of the model with other operators, or use the target ort-cpu"
_TYPES = frozenset(
    {
        *(ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.INT8),
        *(ir.DataType.INT32, ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.UINT8),
        *(ir.DataType.FLOAT8E4M3FN, ir.DataType.INT4, ir.DataType.FLOAT4E2M1),
        ir.DataType.FLOAT8E8M0,
    }
)
_SYMMETRIC = frozenset(
    {ir.DataType.INT8, ir.DataType.INT4, ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT4E2M1}
)


def find_refused(
    model: ir.Model, facts: Facts, capabilities: tuple[str, ...] = ()
) -> tuple[Refused, ...]:
    """Return every node that is known to be refused, in graph order.

    Args:
        model: The graph as it would be handed over.
        facts: Its types and shapes.
        capabilities: The GPUs to build for; empty for that of the machine.
    """
    found = []
    for node in all_nodes(model):
        for reason, fix in _refusals(node, facts, capabilities):
            found.append(Refused.of(node, reason, fix))
            break
    return tuple(found)


def _refusals(
    node: ir.Node, facts: Facts, capabilities: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    if node.domain not in ("", "com.microsoft"):
        yield f"TensorRT knows no operators of the domain {node.domain!r}", _WRITE_OTHERWISE
    elif node.op_type not in (CONTRIB_OPERATORS if node.domain else OPERATORS):
        fix = _ADVICE.get(node.op_type, _WRITE_OTHERWISE)
        yield "TensorRT has no such operator", fix
    for value in (*node.inputs, *node.outputs):
        dtype = facts.dtype(value)
        if value is not None and dtype is not None and dtype not in _TYPES:
            if node.op_type == "DequantizeLinear" or dtype == ir.DataType.UNDEFINED:
                continue
            cast = "float32" if dtype == ir.DataType.DOUBLE else "a type that it has"
            yield (
                f"{value.name!r} is {dtype.name.lower()}, which TensorRT does not have",
                f"compute it in {cast}",
            )
    yield from _quantisation_refusals(node, facts)
    yield from _attention_refusals(node)
    if capabilities[:1] == ("7.5",):
        yield from _turing_refusals(node, facts)


def _quantisation_refusals(node: ir.Node, facts: Facts) -> Iterator[tuple[str, str]]:
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return
    quantised = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    dtype = facts.dtype(quantised)
    if dtype == ir.DataType.INT32:
        yield (
            "TensorRT does not take quantised biases (INT32)",
            "quantise weights and activations only, and leave biases in float",
        )
    elif dtype is not None and dtype not in _SYMMETRIC:
        yield (
            f"TensorRT quantises to INT8 around zero; this is {dtype.name.lower()}",
            "quantise symmetrically: int8 with zero point 0",
        )
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    if zero is None:
        return
    if zero.const_value is None:
        yield "its zero point is computed", "make the zero point a constant 0"
    elif np.any(zero.const_value.numpy().astype(np.float32)):
        yield (
            "its zero point is not 0, and TensorRT quantises around zero only",
            "quantise symmetrically: int8 with zero point 0",
        )


def _attention_refusals(node: ir.Node) -> Iterator[tuple[str, str]]:
    if node.op_type not in ("Attention", "MultiHeadAttention") or len(node.inputs) < 3:
        return
    query, key, value = node.inputs[:3]
    if query is key and key is value:
        yield (
            "its query, key and value are one tensor, which crashes the builder",
            "leave attention in its plain form: MatMul, Softmax, MatMul",
        )
    if sum(1 for output in node.outputs if output.name) > 1:
        yield (
            "TensorRT gives one output of Attention",
            "concatenate past and present keys in front of it",
        )


def _turing_refusals(node: ir.Node, facts: Facts) -> Iterator[tuple[str, str]]:
    types = {facts.dtype(value) for value in node.outputs}
    if ir.DataType.INT4 in {facts.dtype(value) for value in node.inputs}:
        yield "compute capability 7.5 has no 4 bit integers", "use -p int8, or leave out --sm 75"
    if ir.DataType.BFLOAT16 in types:
        yield "compute capability 7.5 has no bfloat16", "use -p fp16, or leave out --sm 75"
    if node.op_type in ("MatMul", "Gemm") and ir.DataType.FLOAT in types:
        yield (
            "TensorRT for RTX has no float32 matrix products for compute capability 7.5",
            "use -p fp16, or leave out --sm 75",
        )
