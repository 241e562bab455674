from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from leptonc.compiler.errors import OnnxFileError, SourceError
from leptonc.compiler.inspection.describe import OperatorSize, WeightSize, describe
from leptonc.compiler.inspection.tables import ROWS, shape_text, size_text
from leptonc.runtime.artifact.layout import ALIGNMENT
from leptonc.runtime.errors import ArtifactError, InputError, IntegrityError

WEIGHTS = (
    WeightSize("w", "float32", (64, 32), 8192, 8192 / 8320),
    WeightSize("b", "float32", (32,), 128, 128 / 8320),
)
OPERATORS = (
    OperatorSize("MatMul", 1, 8192),
    OperatorSize("Add", 1, 128),
    OperatorSize("Relu", 1, 0),
)


def printed(path: Path, width: int = 200) -> str:
    out = io.StringIO()
    describe(path).render(Console(file=out, width=width))
    return out.getvalue()


def test_an_artifact_is_described_from_its_manifest_and_its_graph(linear_artifact):
    found = describe(linear_artifact)
    assert (found.kind, found.name, found.compiled_by) == ("artifact", "linear", "0.0.1")
    assert found.bytes == linear_artifact.stat().st_size
    assert found.verified is True
    (variant,) = found.variants
    assert variant.name == "ort-cpu"
    assert variant.about["precision"] == "fp32"
    assert variant.demands["engine_min"] == "1.23"
    assert variant.weights == WEIGHTS
    assert variant.operators == OPERATORS


def test_sections_cover_the_file(linear_artifact):
    sections = describe(linear_artifact).sections
    assert [section.name for section in sections] == ["ort-cpu/graph", "weights", "manifest"]
    assert sections[1].bytes == 8320
    assert sections[0].offset == ALIGNMENT
    assert sections[-1].offset + sections[-1].bytes == linear_artifact.stat().st_size


def test_an_onnx_file_has_the_same_operators_and_weights(linear_onnx):
    found = describe(linear_onnx)
    (graph,) = found.variants
    assert (found.kind, found.verified, found.sections) == ("onnx", False, ())
    assert graph.weights == WEIGHTS
    assert graph.operators == OPERATORS
    assert graph.demands == {"opset": {"ai.onnx": 20}, "ir_version": 10}
    (spec,) = found.signature["inputs"]
    assert spec["shape"] == [{"name": "batch", "min": 0, "max": None}, 64]


def test_operators_are_counted_inside_subgraphs(onnx_file):
    path = onnx_file("""
        <ir_version: 10, opset_import: ["" : 20, "com.example" : 1]>
        choose (bool c, float[2] x) => (float[2] y)
        <float[2] one = {1.0, 1.0}> {
          z = com.example.Twist(x)
          y = If(c) <
            then_branch = left () => (float[2] a) { a = Add(x, one) },
            else_branch = right () => (float[2] b) { n = Neg(x) b = Add(n, one) }
          >
        }
    """)
    (graph,) = describe(path).variants
    assert {each.op: each.nodes for each in graph.operators} == {
        "Add": 2,
        "If": 1,
        "Neg": 1,
        "com.example.Twist": 1,
    }
    assert sum(each.weight_bytes for each in graph.operators) == 8


def test_flipped_bytes_are_reported_and_not_described(linear_artifact):
    data = bytearray(linear_artifact.read_bytes())
    offset = describe(linear_artifact).sections[1].offset
    data[offset + 5] ^= 1
    linear_artifact.write_bytes(data)
    with pytest.raises(IntegrityError, match="not those that were written") as caught:
        describe(linear_artifact)
    assert caught.value.exit_code == 3
    assert "'weights'" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("missing.lepton", None, ArtifactError, "no such file"),
        ("empty.lepton", b"", ArtifactError, "empty"),
        ("other.lepton", b"PK\x03\x04" * 2000, ArtifactError, "not a leptonc artifact"),
        ("model.pt", b"PK\x03\x04" * 2000, ArtifactError, "not a leptonc artifact"),
        ("missing.onnx", None, SourceError, "no such file"),
        ("broken.onnx", b"\x08\x0a\x3a\xff", OnnxFileError, "not a valid ONNX model"),
        ("empty.onnx", b"", OnnxFileError, "no ONNX graph"),
    ],
)
def test_files_that_are_neither_are_refused(tmp_path, name, data, error, message):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=message) as caught:
        describe(path)
    assert caught.value.exit_code == 3


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="folder"):
        describe(tmp_path)


def test_json_round_trips(linear_artifact, linear_onnx):
    for path in (linear_artifact, linear_onnx):
        record = json.loads(json.dumps(describe(path).to_json()))
        assert record["path"] == str(path)
        assert record["variants"][0]["weights"][0]["shape"] == [64, 32]


def test_the_printed_form_shows_sizes_and_evidence(linear_artifact):
    text = printed(linear_artifact)
    for expected in (
        "every hash is intact",
        "leptonc 0.0.1",
        "float32[batch 1..8, 64]",
        "MatMul",
        "8.2 kB",
        "98.5%",
        "139.6 dB",
        "equal",
        "against the source module on PyTorch",
        "CPUExecutionProvider 3",
        "ort-cpu/graph",
        "6 to 3",
        "dead 3",
    ):
        assert expected in text, text


def test_an_onnx_file_is_said_to_carry_no_hashes(linear_onnx):
    assert "no hashes" in printed(linear_onnx)


def test_long_tables_end_with_the_sum_of_the_rest(onnx_file):
    count = ROWS + 3
    nodes = "\n".join(f"v{i + 1} = Add(v{i}, w{i})" for i in range(count))
    weights = ", ".join(f"float[2] w{i} = {{1.0, 2.0}}" for i in range(count))
    path = onnx_file(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        long (float[2] v0) => (float[2] v{count}) <{weights}> {{ {nodes} }}
    """)
    text = printed(path)
    assert "3 more" in text
    assert "24 B" in text


def test_names_are_printed_as_they_are(onnx_file):
    path = onnx_file("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[2] x) => (float[2] "[bold]y") { "[bold]y" = Neg(x) }
    """)
    assert "[bold]y" in printed(path)


def test_sizes_and_shapes_read_well():
    assert [size_text(n) for n in (999, 1000, 1_500_000, 2_500_000_000)] == [
        "999 B",
        "1.0 kB",
        "1.5 MB",
        "2.5 GB",
    ]
    assert shape_text([{"name": "n", "min": 1, "max": None}, 3]) == "[n 1..any, 3]"


def test_an_artifact_is_described_without_torch_or_an_engine(linear_artifact):
    code = (
        "import sys; from leptonc.compiler.inspection.describe import describe; describe(sys.argv[1]);"
        "print(sorted({'torch', 'onnxruntime', 'onnxscript'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(linear_artifact)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
