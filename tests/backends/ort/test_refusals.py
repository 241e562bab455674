"""Graphs that ONNX Runtime cannot run, and the words that say which node and why."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from small_artifacts import parse

from leptonc.backends import Target, TargetRow, find_backend, parse_target
from leptonc.backends.errors import (
    BuildError,
    UnsupportedInterfaceError,
    UnsupportedOperatorError,
    UnsupportedTargetError,
)
from leptonc.backends.ort.backend import OrtBackend, check_same_interface
from leptonc.backends.ort.session import refuse
from leptonc.runtime.errors import EngineError, LeptonError, UnsupportedError

HEAD = '<ir_version: 10, opset_import: ["" : 20, "com.example" : 3]>'


def build(model: ir.Model, folder: Path) -> None:
    OrtBackend().build(model, parse_target("ort-cpu"), folder)


def named(model: ir.Model) -> ir.Model:
    """Name every node after its operator, as exporters do."""
    for index, node in enumerate(model.graph.all_nodes()):
        node.name = f"node_{node.op_type}_{index}"
    return model


OPERATORS = [
    pytest.param(
        f"{HEAD} g (float[2] x) => (float[2] y) {{ a = Neg(x) y = com.example.Magic(a) }}",
        "com.example::Magic at opset 3",
        "node_Magic_1",
        id="unknown domain",
    ),
    pytest.param(
        f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Magic(x) }}",
        "ai.onnx::Magic at opset 20",
        "node_Magic_0",
        id="unknown operator",
    ),
    pytest.param(
        f"""{HEAD} g (float[2] x, bool c) => (float[2] y) {{
          y = If (c) <
            then_branch = yes () => (float[2] a) {{ t = Neg(x) a = com.example.Magic(t) }},
            else_branch = no () => (float[2] b) {{ b = Neg(x) }}
          >
        }}""",
        "com.example::Magic at opset 3",
        "node_Magic_2",
        id="inside a branch",
    ),
    pytest.param(
        f'{HEAD} g (float[2] x) => (int32[2] y) {{ a = Cast <to = 12> (x) b = BitShift <direction = "LEFT"> (a, a) y = Cast <to = 6> (b) z = BitwiseNot(x) }}',
        "ai.onnx::BitwiseNot at opset 20",
        "node_BitwiseNot_3",
        id="a type that the operator does not take",
    ),
    pytest.param(
        f"{HEAD} g (float[2, 2] x) => (bfloat16[2, 2] y) {{ a = Cast <to = 16> (x) y = Sin(a) }}".replace(
            "bfloat16[2, 2] y", "float[2, 2] z"
        ).replace("y = Sin(a)", "y = Sin(a) z = Cast <to = 1> (y)"),
        "ai.onnx::Sin at opset 20",
        "node_Sin_1",
        id="a type without a kernel",
    ),
]


@pytest.mark.parametrize(("text", "operator", "node"), OPERATORS)
def test_a_node_without_a_kernel_is_named(
    text: str, operator: str, node: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedOperatorError) as caught:
        build(named(parse(text)), tmp_path)
    assert operator in caught.value.what
    assert node in str(caught.value.where)
    assert caught.value.fix
    assert caught.value.exit_code == 4
    assert not list(tmp_path.rglob("source.*"))


def test_an_operator_in_a_function_is_named(tmp_path: Path) -> None:
    model = parse(
        f"""{HEAD} g (float[2] x) => (float[2] y) {{ y = com.example.Twice(x) }}
        <domain: "com.example", opset_import: ["" : 20, "com.example" : 3]>
        Twice (a) => (b) {{ c = com.example.Magic(a) b = Add(c, c) }}"""
    )
    with pytest.raises(UnsupportedOperatorError, match="com.example::Magic"):
        build(model, tmp_path)


def test_a_function_that_onnx_runtime_can_inline_works(tmp_path: Path) -> None:
    model = parse(
        f"""{HEAD} g (float[2] x) => (float[2] y) {{ y = com.example.Twice(x) }}
        <domain: "com.example", opset_import: ["" : 20]>
        Twice (a) => (b) {{ b = Add(a, a) }}"""
    )
    payload = OrtBackend().build(model, parse_target("ort-cpu"), tmp_path)
    assert [node.op_type for node in payload.model().graph] == ["Add"]


INTERFACES = [
    (
        "g (seq(float[2]) x) => (float[2] y) { i = Constant <value = int64 {0}> () y = SequenceAt(x, i) }",
        "the input 'x' is Sequence",
    ),
    (
        "g (optional(float[2]) x) => (float[2] y) { y = OptionalGetElement(x) }",
        "the input 'x' is Optional",
    ),
    (
        "g (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x) }",
        "the output 'y' is Sequence",
    ),
    ("g (bfloat16[2] x) => (float[2] y) { y = Cast <to = 1> (x) }", "the type BFLOAT16"),
    ("g (float[2] x) => (float8e5m2[2] y) { y = Cast <to = 19> (x) }", "the type FLOAT8E5M2"),
]


@pytest.mark.parametrize(("text", "message"), INTERFACES)
def test_an_interface_that_numpy_cannot_carry_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedInterfaceError) as caught:
        build(parse(f"{HEAD} {text}"), tmp_path)
    assert message in caught.value.what
    assert caught.value.exit_code == 4


def test_an_opset_that_onnx_runtime_does_not_read_is_refused(tmp_path: Path) -> None:
    model = parse(
        '<ir_version: 14, opset_import: ["" : 27]> g (float[2] x) => (float[2] y) { y = Neg(x) }'
    )
    with pytest.raises(
        UnsupportedError, match="the graph is at opset 27; ONNX Runtime reads up to 26"
    ):
        build(model, tmp_path)


@pytest.mark.parametrize("version", [3, 7, 13, 14])
def test_the_file_version_is_set_to_one_that_is_read(version: int, tmp_path: Path) -> None:
    model = parse(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Neg(x) }}")
    model.ir_version = version
    payload = OrtBackend().build(model, parse_target("ort-cpu"), tmp_path)
    assert 8 <= payload.model().ir_version <= 13
    assert model.ir_version == version


def test_a_refusal_that_names_no_node_passes_the_message_on() -> None:
    model = parse(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Neg(x) }}")
    with pytest.raises(EngineError, match="something else went wrong") as caught:
        refuse("something else went wrong", model)
    assert caught.value.exit_code == 3


def test_a_changed_interface_is_a_bug() -> None:
    before = parse(f"{HEAD} g (float[2] x) => (float[2] y) {{ y = Neg(x) }}")
    after = parse(f"{HEAD} g (float[2] x) => (float[2] z) {{ z = Neg(x) }}")
    with pytest.raises(BuildError, match="changed the outputs") as caught:
        check_same_interface(before, after)
    assert caught.value.exit_code == 1


TARGETS = [
    ("ort", "'ort' is not a target"),
    ("ort-", "'ort-' is not a target"),
    ("-cpu", "'-cpu' is not a target"),
    ("ort-tpu", "'ort-tpu' is not a target"),
    ("", "'' is not a target"),
    ("nope-cpu", "'nope-cpu' is not a target"),
    ("ort-gpu", "'ort-gpu' is not a target"),
]


@pytest.mark.parametrize(("text", "message"), TARGETS)
def test_a_target_that_does_not_exist_is_refused(text: str, message: str) -> None:
    with pytest.raises(UnsupportedTargetError, match=message) as caught:
        find_backend(parse_target(text))
    assert caught.value.exit_code == 4
    assert caught.value.fix


def test_a_target_without_a_backend_is_refused() -> None:
    with pytest.raises(UnsupportedTargetError, match="there is no backend 'nope'"):
        find_backend(Target("nope", TargetRow("nope", "cpu", "generic")))


def test_a_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnsupportedTargetError, match="does not build precision 'int3' yet"):
        find_backend(parse_target("ort-cpu", precision="int3"))


def test_a_requirement_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LeptonError, match="'avx' is not something an artifact can require"):
        parse_target("ort-cpu", require="avx")


def test_targets_name_their_variants() -> None:
    assert parse_target("ort-cpu").name == "ort-cpu"
    assert parse_target("ort-cpu", precision="int8").name == "ort-cpu-int8"
    assert parse_target("ort-cpu").require == "portable"
    assert parse_target("ort-cpu") == parse_target("ort-cpu", precision="fp32", require="portable")
