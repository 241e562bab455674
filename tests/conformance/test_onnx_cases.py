"""ONNX's own test cases through `optimize`: every case that runs must go on giving its answer.

The onnx package carries about 2,000 small models with inputs and expected outputs. A case is
eligible when plain ONNX Runtime gives the expected outputs. It is then optimised, run again and
compared again, in three forms: with its inputs as they are, with all but the first bound as
initializers, and with all bound, so that the whole model is a constant. Doing nothing would
pass too, so the number of graphs changed and of nodes left are held as well.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner, _normalize_tensor
from onnxruntime.capi import onnxruntime_pybind11_state

from leptonc.passes import optimize
from leptonc.passes.graph import count_nodes
from leptonc.runtime.errors import LeptonError

pytestmark = pytest.mark.conformance

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
BATCHES = 50

# Per form: cases eligible, graphs changed, nodes before, at least; nodes after, at most.
FORMS = {
    "as given": (1500, 300, 12000, 5000),
    "first input left": (1000, 260, 10500, 2950),
    "no input left": (1500, 1400, 11500, 2000),
}

# How many inputs stay inputs.
LEFT = {"as given": None, "first input left": 1, "no input left": 0}

# NumPy has no such types, so the engine takes them by number only.
BY_NUMBER = {
    np.dtype(ml_dtypes.bfloat16): onnx.TensorProto.BFLOAT16,
    np.dtype(ml_dtypes.float8_e4m3fn): onnx.TensorProto.FLOAT8E4M3FN,
    np.dtype(ml_dtypes.float8_e4m3fnuz): onnx.TensorProto.FLOAT8E4M3FNUZ,
    np.dtype(ml_dtypes.float8_e5m2): onnx.TensorProto.FLOAT8E5M2,
    np.dtype(ml_dtypes.float8_e5m2fnuz): onnx.TensorProto.FLOAT8E5M2FNUZ,
}

ENGINE_ERRORS = tuple(
    kind
    for kind in vars(onnxruntime_pybind11_state).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
)
# A wrong answer, a type that the bindings cannot pass, or an engine that refuses.
UNABLE = (*ENGINE_ERRORS, AssertionError, RuntimeError, TypeError, ValueError, LeptonError)

DataSet = tuple[Sequence[Any], Sequence[Any]]


@dataclass(frozen=True)
class Tally:
    eligible: int = 0
    changed: int = 0
    before: int = 0
    after: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@pytest.fixture(scope="session")
def cases() -> list[TestCase]:
    ort.set_default_logger_severity(4)
    # Making the cases divides by zero on purpose.
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        found = [case for kind in KINDS for case in load_model_tests(kind=kind)]
    return sorted(found, key=lambda case: (case.kind, case.name))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all workers of this run see."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "conformance"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("form", FORMS)
def test_every_case_that_runs_still_gives_its_answer(
    form: str, batch: int, cases: list[TestCase], shared_folder: Path
):
    tally, wrong = Tally(), []
    for case in cases[batch::BATCHES]:
        for model, data in eligible(case, LEFT[form]):
            rewritten = ir.from_proto(model)
            before = count_nodes(rewritten)
            try:
                changed = any(stats.changed for stats in optimize(rewritten))
                again = [stats for stats in optimize(rewritten) if stats.changed]
                check(ir.to_proto(rewritten), data, case)
            except UNABLE as error:
                wrong.append(f"{case.name}: {type(error).__name__}: {error}")
                continue
            if again:
                wrong.append(f"{case.name}: a second run changed {again}")
            tally = tally.plus(Tally(1, int(changed), before, count_nodes(rewritten)))
    assert wrong == []
    assert_totals(form, batch, tally, shared_folder)


def assert_totals(form: str, batch: int, tally: Tally, folder: Path) -> None:
    """Leave this batch's numbers; whoever completes the set checks the sums."""
    stem = form.replace(" ", "-")
    own = folder / f"{stem}-{batch}.json"
    partial = own.with_suffix(".part")
    partial.write_text(json.dumps(astuple(tally)))
    partial.rename(own)
    done = list(folder.glob(f"{stem}-*.json"))
    if len(done) < BATCHES:
        return
    total = Tally()
    for path in done:
        total = total.plus(Tally(*json.loads(path.read_text())))
    least_eligible, least_changed, least_before, most_after = FORMS[form]
    assert total.eligible >= least_eligible, total
    assert total.changed >= least_changed, total
    assert total.before >= least_before, total
    assert total.after <= most_after, total


def eligible(case: TestCase, left: int | None) -> Iterator[tuple[onnx.ModelProto, list[DataSet]]]:
    """Yield the model and data of a case in one form, if plain ONNX Runtime gets it right."""
    model, data = load(case)
    if left is not None:
        bound = bind(model, data[0], left)
        if bound is None:
            return
        model, data = bound
    try:
        check(model, data, case)
    except UNABLE:
        return
    yield model, data


def load(case: TestCase) -> tuple[onnx.ModelProto, list[DataSet]]:
    if case.model is not None:
        return case.model, [
            ([plain(item) for item in inputs], [plain(item) for item in outputs])
            for inputs, outputs in case.data_sets
        ]
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    sets = sorted(folder.glob("test_data_set_*"))
    return model, [
        (read(path, "input", model.graph.input), read(path, "output", model.graph.output))
        for path in sets
    ]


def plain(item: Any) -> Any:
    """Return an input or output as arrays: some come as protobufs, some as NumPy scalars."""
    value = _normalize_tensor(item)
    return np.asarray(value) if isinstance(value, np.generic) else value


def read(folder: Path, prefix: str, declared: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    kinds: dict[str, tuple[type, Callable[[Any], Any]]] = {
        "tensor_type": (onnx.TensorProto, numpy_helper.to_array),
        "sequence_type": (onnx.SequenceProto, numpy_helper.to_list),
        "optional_type": (onnx.OptionalProto, numpy_helper.to_optional),
    }
    files = sorted(
        folder.glob(f"{prefix}_*.pb"), key=lambda path: int(re.findall(r"\d+", path.name)[0])
    )
    values = []
    for path, info in zip(files, declared, strict=False):
        proto_type, convert = kinds[info.type.WhichOneof("value")]
        proto = proto_type()
        proto.ParseFromString(path.read_bytes())
        values.append(convert(proto))
    return values


def bind(
    model: onnx.ModelProto, data: DataSet, left: int
) -> tuple[onnx.ModelProto, list[DataSet]] | None:
    """Make initializers of all tensor inputs but the first `left`; None when there are none."""
    inputs, outputs = data
    bound = onnx.ModelProto()
    bound.CopyFrom(model)
    kept = []
    for index, (info, value) in enumerate(zip(model.graph.input, inputs, strict=False)):
        if index >= left and isinstance(value, np.ndarray) and info.type.HasField("tensor_type"):
            tensor = numpy_helper.from_array(value, info.name)
            if tensor.data_type == info.type.tensor_type.elem_type:
                bound.graph.initializer.append(tensor)
                continue
        kept.append(index)
    if len(kept) == len(inputs):
        return None
    del bound.graph.input[:]
    bound.graph.input.extend(model.graph.input[index] for index in kept)
    bound.graph.input.extend(list(model.graph.input)[len(inputs) :])
    bound.ir_version = max(bound.ir_version, 4)
    return bound, [([inputs[index] for index in kept], outputs)]


def check(model: onnx.ModelProto, data: list[DataSet], case: TestCase) -> None:
    """Run a model on ONNX Runtime as it comes, and compare.

    Raises:
        One of UNABLE.
    """
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for inputs, expected in data:
        feeds = dict(zip(names, inputs, strict=False))
        by_number = [*inputs, *expected]
        if any(isinstance(v, np.ndarray) and v.dtype in BY_NUMBER for v in by_number):
            got = run_by_number(session, feeds)
        else:
            got = session.run(None, feeds)
        Runner.assert_similar_outputs(expected, got, case.rtol, case.atol)


def run_by_number(session: ort.InferenceSession, feeds: dict[str, Any]) -> list[np.ndarray]:
    values = {}
    for name, array in feeds.items():
        number = BY_NUMBER.get(array.dtype)
        values[name] = (
            ort.OrtValue.ortvalue_from_numpy(array)
            if number is None
            else ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.ascontiguousarray(array).view(f"u{array.itemsize}").reshape(array.shape), number
            )
        )
    return [from_engine(value) for value in session.run_with_ort_values(None, values)]


def from_engine(value: ort.OrtValue) -> np.ndarray:
    by_type = {number: dtype for dtype, number in BY_NUMBER.items()}
    dtype = by_type.get(value.element_type())
    if dtype is None:
        return value.numpy()
    raw = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(raw, dtype).reshape(value.shape())
