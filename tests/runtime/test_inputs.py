"""Every input that a model does not take, and the words of the refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from leptonc.runtime.artifact.signature import Dim, Signature, TensorSpec
from leptonc.runtime.errors import InputError
from leptonc.runtime.inputs import InputGate, check_inputs

BATCH = Dim("batch", 1, 4)
SIGNATURE = Signature(
    inputs=(
        TensorSpec("ids", "int64", (BATCH, Dim("length", 2, None))),
        TensorSpec("scale", "float32", (BATCH, 3)),
    ),
    outputs=(TensorSpec("y", "float32", (BATCH,)),),
)


def arrays(**changes: Any) -> dict[str, Any]:
    ids, scale = np.ones((2, 5), np.int64), np.ones((2, 3), np.float32)
    return {"ids": ids, "scale": scale, **changes}


def test_good_inputs_come_back_as_they_are_with_their_sizes() -> None:
    given = arrays()
    checked, sizes = check_inputs(SIGNATURE, {"scale": given["scale"], "ids": given["ids"]})
    assert list(checked) == ["ids", "scale"]
    assert checked["ids"] is given["ids"]
    assert checked["scale"] is given["scale"]
    assert sizes == {"batch": 2, "length": 5}


class FakeTensor:
    """Stands for a tensor of another library."""


WRONG = [
    pytest.param({}, "the input 'ids' is missing", "no input was given", id="nothing"),
    pytest.param({"ids": 1}, "the input 'scale' is missing", "takes ids, scale", id="missing"),
    pytest.param(arrays(idz=1), "there is no input 'idz'", "did you mean 'ids'?", id="close"),
    pytest.param(arrays(qqq=1), "there is no input 'qqq'", "the model takes ids, scale", id="far"),
    pytest.param(
        {"id": np.ones((2, 5), np.int64), "scale": 1},
        "there is no input 'id'",
        "did you mean 'ids'?",
        id="misspelt",
    ),
    pytest.param(
        arrays(ids=[[1, 2]]),
        "'ids' is a builtins.list, not a NumPy array",
        "ids=numpy.asarray(ids, dtype='int64')",
        id="list",
    ),
    pytest.param(arrays(ids=3), "'ids' is a builtins.int", "numpy.asarray", id="number"),
    pytest.param(arrays(ids=None), "'ids' is a builtins.NoneType", "numpy.asarray", id="None"),
    pytest.param(arrays(ids=np.int64(3)), "'ids' is a numpy.int64", "numpy.asarray", id="scalar"),
    pytest.param(arrays(ids=FakeTensor()), "FakeTensor, not a NumPy", "numpy.asarray", id="tensor"),
    pytest.param(
        arrays(ids=np.ones((2, 5), np.int32)),
        "'ids' has dtype int32; int64 is needed",
        "ids=ids.astype('int64')",
        id="narrow",
    ),
    pytest.param(
        arrays(scale=np.ones((2, 3))),
        "'scale' has dtype float64; float32 is needed",
        "scale=scale.astype('float32')",
        id="wide",
    ),
    pytest.param(
        arrays(ids=np.ones((2, 5), bool)), "dtype bool; int64", "astype('int64')", id="bool"
    ),
    pytest.param(arrays(ids=np.ones((2, 5), object)), "dtype object; int64", "astype", id="object"),
    pytest.param(
        arrays(ids=np.ones((2, 5), ">i8")),
        "'ids' has the other byte order (>i8); <i8 is needed",
        "ids=ids.astype('int64')",
        id="byte order",
    ),
    pytest.param(
        arrays(ids=np.ones(5, np.int64)),
        "'ids' has rank 1, shape [5]; rank 2 is needed",
        "ids: int64[batch, length]",
        id="rank",
    ),
    pytest.param(arrays(ids=np.array(1, np.int64)), "has rank 0, shape []", "reshape", id="rank 0"),
    pytest.param(
        arrays(scale=np.ones((2, 4), np.float32)),
        "'scale' has size 4 in axis 1; it is fixed at 3",
        "scale: float32[batch, 3]",
        id="fixed",
    ),
    pytest.param(
        {"ids": np.ones((5, 5), np.int64), "scale": np.ones((5, 3), np.float32)},
        "size 5 in the dimension 'batch', above its upper bound 4 (axis 0)",
        "compile the model with other bounds",
        id="above",
    ),
    pytest.param(
        {"ids": np.ones((0, 5), np.int64), "scale": np.ones((0, 3), np.float32)},
        "size 0 in the dimension 'batch', below its lower bound 1 (axis 0)",
        "reshape, pad or cut",
        id="below",
    ),
    pytest.param(
        arrays(ids=np.ones((2, 1), np.int64)),
        "size 1 in the dimension 'length', below its lower bound 2 (axis 1)",
        "reshape, pad or cut",
        id="below, no upper bound",
    ),
    pytest.param(
        arrays(scale=np.ones((3, 3), np.float32)),
        "the dimension 'batch' is 2 in axis 0 of input 'ids' but 3 in axis 0 of input 'scale'",
        "the same size of 'batch'",
        id="disagreement",
    ),
]


@pytest.mark.parametrize(("given", "message", "help_text"), WRONG)
def test_a_wrong_input_is_refused(given: dict[str, Any], message: str, help_text: str) -> None:
    with pytest.raises(InputError) as caught:
        check_inputs(SIGNATURE, given)
    assert message in str(caught.value)
    assert help_text in str(caught.value)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, ValueError)


def one(dtype: str, *shape: int) -> Signature:
    return Signature((TensorSpec("x", dtype, shape),), (TensorSpec("y", dtype, shape),))


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(12, dtype=np.float32).reshape(4, 3).T, id="transposed"),
        pytest.param(np.arange(24, dtype=np.float32).reshape(3, 8)[:, ::2], id="strided"),
        pytest.param(np.arange(12, dtype=np.float32).reshape(3, 4)[::-1], id="reversed"),
        pytest.param(np.broadcast_to(np.float32(1), (3, 4)), id="broadcast"),
        pytest.param(np.asfortranarray(np.ones((3, 4), np.float32)), id="Fortran order"),
        pytest.param(
            np.frombuffer(b"\0" + np.arange(12, dtype=np.float32).tobytes(), np.uint8)[1:]
            .view(np.float32)
            .reshape(3, 4),
            id="not aligned",
        ),
    ],
)
def test_what_is_not_contiguous_is_copied(array: np.ndarray) -> None:
    checked, _ = check_inputs(one("float32", 3, 4), {"x": array})
    assert checked["x"].flags.c_contiguous
    assert checked["x"].flags.aligned
    np.testing.assert_array_equal(checked["x"], array)


def test_an_array_of_rank_0_stays_one() -> None:
    checked, _ = check_inputs(one("float32"), {"x": np.array(2, np.float32)})
    assert checked["x"].shape == ()


def test_an_array_without_elements_is_an_array() -> None:
    checked, _ = check_inputs(one("float32", 0, 4), {"x": np.empty((0, 4), np.float32)})
    assert checked["x"].shape == (0, 4)


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "float16", "float32", "float64", "complex64", "complex128"),
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    ],
)
def test_each_dtype_takes_its_own_kind_and_no_other(dtype: str) -> None:
    signature = one(dtype, 2)
    check_inputs(signature, {"x": np.zeros(2, dtype)})
    other = "int8" if dtype != "int8" else "uint8"
    with pytest.raises(InputError, match=f"has dtype {other}; {dtype} is needed"):
        check_inputs(signature, {"x": np.zeros(2, other)})


@pytest.mark.parametrize("array", [np.array(["a", "bc"]), np.array(["a", "bc"], object)])
def test_text_becomes_an_object_array(array: np.ndarray) -> None:
    checked, _ = check_inputs(one("str", 2), {"x": array})
    assert checked["x"].dtype == object
    assert checked["x"].tolist() == ["a", "bc"]


@pytest.mark.parametrize(
    "array", [np.array([b"a", b"b"]), np.array(["a", 1], object), np.array([1, 2])]
)
def test_what_is_not_text_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="an array of str is needed"):
        check_inputs(one("str", 2), {"x": array})


def test_a_signature_reads_as_one_line() -> None:
    text = "(ids: int64[batch, length], scale: float32[batch, 3]) -> (y: float32[batch])"
    assert str(SIGNATURE) == text
    assert BATCH.bounds == "1..4"
    assert Dim("n", 0, None).bounds == "0..any"


def test_what_was_accepted_once_does_not_let_anything_else_through():
    batch = Dim("batch", 1, 4)
    signature = Signature(
        (TensorSpec("x", "float32", (batch, 2)), TensorSpec("y", "float32", (batch, 2))), ()
    )
    gate = InputGate(signature)
    good = {"x": np.zeros((2, 2), np.float32), "y": np.zeros((2, 2), np.float32)}
    for _ in range(3):
        assert gate.check(good) is not None
    for name, bad in (
        ("x", np.zeros((2, 2), np.float64)),
        ("x", np.zeros((2, 2), ">f4")),
        ("x", np.zeros((3, 2), np.float32)),
        ("x", np.zeros((5, 2), np.float32)),
        ("x", [[0.0, 0.0], [0.0, 0.0]]),
        ("z", np.zeros((2, 2), np.float32)),
    ):
        with pytest.raises(InputError):
            gate.check({**good, name: bad})
    strided = np.zeros((2, 4), np.float32)[:, ::2]
    assert gate.check({**good, "x": strided})["x"].flags.c_contiguous
    assert gate.check(good) is good
