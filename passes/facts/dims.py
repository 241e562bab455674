"""The dimensions of a node's output, from those of its inputs."""

from __future__ import annotations

from collections.abc import Callable

from leptonc.passes.facts.dims_of_attention import CONTRIB_ATTENTION, standard_attention
from leptonc.passes.facts.dims_of_einsum import einsum
from leptonc.passes.facts.dims_of_parts import clamp, gather, gather_elements, gather_nd, sliced
from leptonc.passes.facts.sizes import ONE, Size, is_at_most, number, product
from leptonc.passes.facts.symbolic_view import Sizes, View

_SAME_AS_FIRST = frozenset(
    {
        *("Abs", "Cast", "CastLike", "Ceil", "Clip", "Cos", "CumSum", "Dropout", "Elu", "Erf"),
        *("Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization"),
        *("IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg"),
        *("Not", "QuantizeLinear", "DequantizeLinear", "Reciprocal", "Relu", "RMSNormalization"),
        *("Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus", "Softsign", "Sqrt"),
        *("Tan", "Tanh", "ThresholdedRelu", "Trilu", "BatchNormalization", "GroupNormalization"),
        *(
            "Swish",
            "SimplifiedLayerNormalization",
            "LpNormalization",
            "BitwiseNot",
            "RotaryEmbedding",
        ),
        *("FastGelu", "BiasGelu", "QuickGelu"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
    }
)

_BROADCAST = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Max", "Min", "Mean", "Sum", "PRelu"),
        *("And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
        *("Where", "BitwiseAnd", "BitwiseOr", "BitwiseXor"),
    }
)


def output_dims(view: View) -> Sizes | None:
    """Return the dimensions of the first output, or None when they do not follow."""
    node = view.node
    if node.domain not in ("", "com.microsoft"):
        return None
    if node.domain and node.op_type in CONTRIB_ATTENTION:
        return CONTRIB_ATTENTION[node.op_type](view)
    if node.op_type in _SAME_AS_FIRST:
        return view.dims(0)
    if node.op_type in _BROADCAST:
        return _broadcast(view, [view.dims(index) for index in range(len(node.inputs))])
    rule = _DIMS.get(node.op_type)
    return None if rule is None or not node.inputs else rule(view)


def _broadcast(view: View, shapes: list[Sizes | None]) -> Sizes | None:
    """Broadcast as NumPy does; a 1 gives way, and equal names stay."""
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = max(len(shape) for shape in known)
    result = []
    for axis in range(rank):
        sizes = [
            shape[axis - rank + len(shape)] for shape in known if axis - rank + len(shape) >= 0
        ]
        wide = list(dict.fromkeys(size for size in sizes if size != ONE))
        # A size cut at a number meets the size itself: it was not cut, or it is 1.
        wide = [size for size in wide if not any(is_at_most(size, other) for other in wide)]
        fixed = [size for size in wide if size.number is not None]
        if len(wide) <= 1:
            result.append(wide[0] if wide else ONE)
        else:
            # A number other than 1 wins over a name, which must be it or 1.
            result.append(fixed[0] if fixed else view.own(axis))
    return tuple(result)


def _transpose(view: View) -> Sizes | None:
    dims = view.dims(0)
    if dims is None:
        return None
    order = view.node.attributes.get_ints("perm")
    axes = list(reversed(range(len(dims)))) if order is None else list(order)
    legal = sorted(axes) == list(range(len(dims)))
    return tuple(dims[axis] for axis in axes) if legal else None


def _matmul(view: View) -> Sizes | None:
    left, right = view.dims(0), view.dims(1)
    if left is None or right is None or len(left) < 2 or len(right) < 2:
        return None
    batch = _broadcast(view, [left[:-2], right[:-2]])
    return None if batch is None else (*batch, left[-2], right[-1])


def _gemm(view: View) -> Sizes | None:
    left, right = view.dims(0), view.dims(1)
    if left is None or right is None or len(left) != 2 or len(right) != 2:
        return None
    rows = left[1] if view.node.attributes.get_int("transA", 0) else left[0]
    columns = right[0] if view.node.attributes.get_int("transB", 0) else right[1]
    return rows, columns


def _reshape(view: View) -> Sizes | None:
    dims, target = view.dims(0), view.content(1)
    if target is None:
        return None
    copies = not view.node.attributes.get_int("allowzero", 0)
    result: list[Size | None] = []
    for axis, size in enumerate(target):
        if size.number == 0 and copies:
            if dims is None or axis >= len(dims):
                return None
            result.append(dims[axis])
        else:
            # A size known by name is taken not to be 0, where another size would be copied.
            result.append(None if size.number == -1 else size)
    if None in result:
        rest = product(tuple(size for size in result if size is not None))
        inferred = None if dims is None else product(dims).over(rest)
        place = result.index(None)
        result[place] = view.own(place) if inferred is None else inferred
    return tuple(size for size in result if size is not None)


def _axes(view: View, rank: int) -> list[int] | None:
    given = view.ints(1)
    return None if given is None else [axis % rank for axis in given] if rank else None


def _unsqueeze(view: View) -> Sizes | None:
    dims, given = view.dims(0), view.ints(1)
    if dims is None or given is None:
        return None
    rank = len(dims) + len(given)
    new = {axis % rank for axis in given}
    rest = iter(dims)
    return tuple(ONE if axis in new else next(rest) for axis in range(rank))


def _squeeze(view: View) -> Sizes | None:
    dims = view.dims(0)
    if dims is None:
        return None
    if view.value(1) is None:
        known = all(size.number is not None for size in dims)
        return tuple(size for size in dims if size != ONE) if known else None
    gone = _axes(view, len(dims))
    if gone is None:
        return None
    return tuple(size for axis, size in enumerate(dims) if axis not in gone)


def _expand(view: View) -> Sizes | None:
    return _broadcast(view, [view.dims(0), view.content(1)])


def _tile(view: View) -> Sizes | None:
    dims, repeats = view.dims(0), view.content(1)
    if dims is None or repeats is None or len(dims) != len(repeats):
        return None
    return tuple(size.times(times) for size, times in zip(dims, repeats, strict=True))


def _concat(view: View) -> Sizes | None:
    shapes = [view.dims(index) for index in range(len(view.node.inputs))]
    if any(shape is None for shape in shapes):
        return None
    known = [shape for shape in shapes if shape is not None]
    rank = len(known[0])
    axis = view.node.attributes.get_int("axis", 0)
    if not rank or any(len(shape) != rank for shape in known):
        return None
    axis %= rank
    total = known[0][axis]
    for shape in known[1:]:
        total = total.plus(shape[axis])
    return (*known[0][:axis], total, *known[0][axis + 1 :])


def _reduce(view: View) -> Sizes | None:
    dims = view.dims(0)
    given = view.node.attributes.get_ints("axes")
    axes = tuple(given) if given is not None else view.ints(1)
    if dims is None or axes is None or not axes:
        return None
    gone = {axis % len(dims) for axis in axes}
    if view.node.attributes.get_int("keepdims", 1):
        return tuple(ONE if axis in gone else size for axis, size in enumerate(dims))
    return tuple(size for axis, size in enumerate(dims) if axis not in gone)


def _range(view: View) -> Sizes | None:
    start, limit, step = (view.content(index) for index in range(3))
    if start is None or limit is None or step is None or len(start) != 1 or len(limit) != 1:
        return None
    # Negative lengths do not occur: a name is a size, and sums of names are too.
    length = limit[0].plus(start[0].times(number(-1)))
    positive = all(factor > 0 for _, factor in length.terms)
    return (length,) if step[0].number == 1 and positive else None


def _flatten(view: View) -> Sizes | None:
    dims = view.dims(0)
    if dims is None:
        return None
    axis = view.node.attributes.get_int("axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return product(dims[:axis]), product(dims[axis:])


def _pooled(view: View) -> Sizes | None:
    dims = view.dims(0)
    return None if not dims else (dims[0], *(view.own(axis) for axis in range(1, len(dims))))


def _resized(view: View) -> Sizes | None:
    dims, wanted = view.dims(0), view.content(3)
    attributes = view.node.attributes
    stretched = attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    if dims is None or wanted is None or not stretched or "axes" in attributes:
        return None
    return wanted if len(wanted) == len(dims) else None


def _shape_dims(view: View) -> Sizes | None:
    content = shape_content(view)
    return None if content is None else (number(len(content)),)


def _constant_of_shape(view: View) -> Sizes | None:
    return view.content(0)


def shape_content(view: View) -> Sizes | None:
    """Return what Shape computes: some of the dimensions of its input."""
    dims = view.dims(0)
    if dims is None:
        return None
    start = view.node.attributes.get_int("start", 0)
    end = view.node.attributes.get_int("end", len(dims))
    return dims[clamp(start, len(dims)) : clamp(end, len(dims))]


_DIMS: dict[str, Callable[[View], Sizes | None]] = {
    "Split": lambda view: view.dims(0) or None,
    "Attention": standard_attention,
    "Transpose": _transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Reshape": _reshape,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Expand": _expand,
    "Tile": _tile,
    "Concat": _concat,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Slice": sliced,
    "Einsum": einsum,
    "Range": _range,
    "Resize": _resized,
    "Flatten": _flatten,
    "Shape": _shape_dims,
    "Size": lambda _: (),
    "ConstantOfShape": _constant_of_shape,
    **dict.fromkeys(
        ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool"), _pooled
    ),
    **dict.fromkeys(
        (
            *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd"),
            *("ReduceL1", "ReduceSumSquare", "ReduceLogSumExp"),
        ),
        _reduce,
    ),
}
