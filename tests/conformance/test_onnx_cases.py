"""ONNX's own test cases through `optimize`: every case that runs must go on giving its answer.

The onnx package carries about 2,000 small models with inputs and expected outputs. A case is
eligible when plain ONNX Runtime gives the expected outputs. It is then optimised for each target,
run again and compared again, in three forms: with its inputs as they are, with all but the first
bound as initializers, and with all bound, so that the whole model is a constant. Doing nothing
would pass too, so the number of graphs changed and of nodes left are held as well.

Targets share what does not depend on them: whether a case is eligible, the run of a graph that
came out the same for several, and, in the two forms where nearly everything is folded, the
canonical stage, at whose end every target starts anyway.

A graph for ort-cuda may hold operators of ONNX Runtime that have no CPU kernel. Such a graph
cannot be run here. It counts as checked, not as run, when that is all that the engine says
against it: it has then passed the engine's own checks of operators, attributes, types and shapes.
How many there are is held too.
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
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner, _normalize_tensor
from onnxruntime.capi import onnxruntime_pybind11_state

from leptonc.passes import optimize
from leptonc.passes.facts.facts import infer_facts
from leptonc.passes.graph.structure import count_nodes
from leptonc.passes.pipeline import Context, run_passes
from leptonc.passes.schedule import STAGES
from leptonc.passes.targets import ORT_CUDA, TARGETS
from leptonc.runtime.errors import LeptonError

pytestmark = pytest.mark.conformance

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
BATCHES = 50

# Per form, for each target: cases eligible, graphs changed, nodes before, at least; nodes after,
# at most; graphs for ort-cuda that have no kernel on a CPU, at most.
FORMS = {
    "as given": (1500, 300, 12000, 5000, 50),
    "first input left": (1000, 260, 10500, 2950, 50),
    "no input left": (1500, 1400, 11500, 2000, 0),
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
NO_KERNEL = onnxruntime_pybind11_state.NotImplemented
# A wrong answer, a type that the bindings cannot pass, or an engine that refuses.
UNABLE = (*ENGINE_ERRORS, AssertionError, RuntimeError, TypeError, ValueError, LeptonError)

DataSet = tuple[Sequence[Any], Sequence[Any]]


@dataclass(frozen=True)
class Tally:
    eligible: int = 0
    changed: int = 0
    before: int = 0
    after: int = 0
    not_run: int = 0

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
    tallies, wrong = dict.fromkeys(TARGETS, Tally()), []
    for case in cases[batch::BATCHES]:
        for model, data in eligible(case, LEFT[form]):
            runs: dict[bytes, bool] = {}
            original = ir.from_proto(model)
            before = count_nodes(original)
            stem = f"{case.name}, {form}"
            start, settled = original, False
            if LEFT[form] is not None:
                try:
                    settled = settle_canonical(start)
                except UNABLE as error:
                    wrong.append(f"{stem}: {type(error).__name__}: {error}")
                    continue
            for target in TARGETS:
                try:
                    found = rewrite_and_check(start.clone(), target, data, case, runs)
                except UNABLE as error:
                    wrong.append(f"{stem} for {target}: {type(error).__name__}: {error}")
                    continue
                changed, after, ran = found
                tally = Tally(1, int(changed or settled), before, after, int(not ran))
                tallies[target] = tallies[target].plus(tally)
    assert wrong == []
    assert_totals(form, batch, tallies, shared_folder)


def settle_canonical(model: ir.Model) -> bool:
    """Run the first stage to its end, as `optimize` does for every target; say if it changed."""
    (canonical,) = (stage for stage in STAGES if stage.name == "canonical")
    changed = False
    while True:
        stats = run_passes(model, canonical.passes, Context(facts=infer_facts(model)))
        if not any(one.changed for one in stats):
            return changed
        changed = True


def rewrite_and_check(
    model: ir.Model, target: str, data: list[DataSet], case: TestCase, runs: dict[bytes, bool]
) -> tuple[bool, int, bool]:
    """Return whether `model` changed, how many nodes it has now, and whether it could be run.

    Args:
        model: Rewritten in place.
        target: What for.
        data: Inputs and expected outputs.
        case: Where they come from.
        runs: The graphs that gave the right answer before, and whether they could be run.

    Raises:
        One of UNABLE.
    """
    changed = any(stats.changed for stats in optimize(model, target=target))
    after = count_nodes(model)
    again = [stats for stats in optimize(model, target=target) if stats.changed]
    assert not again, f"a second run changed {again}"
    proto = ir.to_proto(model)
    key = proto.SerializeToString(deterministic=True)
    if key not in runs:
        try:
            check(proto, data, case)
            runs[key] = True
        except NO_KERNEL as error:
            if target != ORT_CUDA or not lacks_own_kernel(model, error):
                raise
            runs[key] = False
    # What one target could not run is no excuse for another.
    assert runs[key] or target == ORT_CUDA, f"no CPU kernel in a graph for {target}"
    return changed, after, runs[key]


def lacks_own_kernel(model: ir.Model, error: NO_KERNEL) -> bool:
    """Whether what the engine cannot run is one of its own operators, not one of ONNX's."""
    missing = re.search(r"Could not find an implementation for (\w+)\(", str(error))
    own = {node.op_type for node in model.graph.all_nodes() if node.domain == "com.microsoft"}
    return missing is not None and missing[1] in own


def assert_totals(form: str, batch: int, tallies: dict[str, Tally], folder: Path) -> None:
    """Leave this batch's numbers; whoever completes the set checks the sums."""
    stem = form.replace(" ", "-")
    own = folder / f"{stem}-{batch}.json"
    partial = own.with_suffix(".part")
    partial.write_text(json.dumps({target: astuple(tally) for target, tally in tallies.items()}))
    partial.rename(own)
    done = [json.loads(path.read_text()) for path in folder.glob(f"{stem}-*.json")]
    if len(done) < BATCHES:
        return
    least_eligible, least_changed, least_before, most_after, most_not_run = FORMS[form]
    for target in TARGETS:
        total = Tally()
        for batch_tallies in done:
            total = total.plus(Tally(*batch_tallies[target]))
        assert total.eligible >= least_eligible, (target, total)
        assert total.changed >= least_changed, (target, total)
        assert total.before >= least_before, (target, total)
        assert total.after <= most_after, (target, total)
        assert total.not_run <= (most_not_run if target == ORT_CUDA else 0), (target, total)


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


CUDA_ONLY = """
<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
g (float[1, 4, 4, 8] x) => (float[1, 4, 4, 8] y) <float[8] w = {1, 1, 1, 1, 1, 1, 1, 1}> {
  y = com.microsoft.GroupNorm<groups = 2, activation = 0>(CALL)
}
"""


@pytest.mark.parametrize(
    ("text", "target", "judged"),
    [
        (CUDA_ONLY.replace("CALL", "x, w, w"), "ort-cuda", False),
        (CUDA_ONLY.replace("CALL", "x, w, w"), "ort-cpu", "NotImplemented"),
        # The engine looks at the operator itself before it looks for a kernel.
        (CUDA_ONLY.replace("CALL", "x, w"), "ort-cuda", "InvalidGraph"),
        (CUDA_ONLY.replace("CALL", "x, w, w").replace("GroupNorm", "Norm"), "ort-cuda", "Fail"),
        # An operator of ONNX without a kernel is no excuse.
        (
            "<ir_version: 10, opset_import: ['' : 20]> g (bool[2] x) => (bool[2] y) "
            "{ y = Neg(x) }".replace("'", '"'),
            "ort-cuda",
            "InvalidGraph",
        ),
    ],
)
def test_only_own_operators_without_a_kernel_count_as_not_run(text, target, judged):
    model = ir.from_proto(onnx.parser.parse_model(text))
    data = [([np.ones((1, 4, 4, 8), np.float32)], [np.ones((1, 4, 4, 8), np.float32)])]
    case = TestCase("n", "n", None, None, None, None, "node", 1e-3, 1e-7)
    try:
        _, _, ran = rewrite_and_check(model, target, data, case, {})
    except UNABLE as error:
        ran = type(error).__name__
    assert ran == judged
