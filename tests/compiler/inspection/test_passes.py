"""What `compile --explain` and `inspect --passes` say about the passes."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from leptonc.compiler.cli import main
from leptonc.compiler.inspection.passes import explain, render
from leptonc.compiler.manifest import NAMED, pass_entry
from leptonc.passes.base import Firing, PassStats, Refusal
from leptonc.runtime.errors import InputError

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[2, 4] x) => (float[4, 2] y) {
  a = Identity(x)
  b = Transpose<perm = [1, 0]>(a)
  y = Neg(b)
}
"""

SUMS = PassStats(
    "sums",
    (("[bold]", 2), ("pad", 1)),
    9,
    6,
    (
        Refusal("add_3", "'a' is also read by 'b'", "pad"),
        Refusal("add_1", "'a' is also read by 'b'", "pad"),
        Refusal("", "it is too wide"),
    ),
    (Firing("pad", "add_2"), Firing("[bold]", "mul_1"), Firing("[bold]", "mul_2")),
    ("add_2", "mul_0", "mul_1"),
    ("new",),
)


def printed(entries, plugins=()) -> str:
    out = io.StringIO()
    render(entries, plugins, Console(file=out, width=200))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_the_printed_form_shows_rules_nodes_and_reasons():
    idle = pass_entry(PassStats("idle", (), 6, 6))
    plugins = [{"name": "idle", "distribution": "acme", "version": "1.0", "stage": "fuse"}]
    assert (
        printed([pass_entry(SUMS), idle], plugins)
        == """
sums: nodes -3
fired   times  at
[bold]      2  mul_1, mul_2
pad         1  add_2
near miss  times  at            because
-              1  (unnamed)     it is too wide
pad            2  add_3, add_1  'a' is also read by 'b'

found nothing to do: idle (from acme 1.0)"""
    )


def test_near_misses_that_are_not_named_are_counted():
    refused = tuple(Refusal(f"n{i}", f"reason {i:05}", "r") for i in range(2 * NAMED))
    entry = pass_entry(PassStats("p", (), 9, 9, refused))
    assert f"and {NAMED} more near misses" in printed([entry])


def test_runs_of_one_pass_are_shown_together():
    first = pass_entry(PassStats("p", (("r", 1),), 9, 8, (), (Firing("r", "a"),)))
    between = pass_entry(PassStats("q", (("s", 1),), 8, 7, (), (Firing("s", "c"),)))
    second = pass_entry(
        PassStats("p", (("r", 5),), 7, 2, (), tuple(Firing("r", c) for c in "bdefg"))
    )
    assert (
        printed([first, between, second])
        == """
p: nodes -6
fired  times  at
r          6  a, b, d, e, and 2 more

q: nodes -1
fired  times  at
s          1  c"""
    )


def test_a_pass_without_rules_says_which_nodes_it_removed_and_rewrote():
    stats = PassStats("clean", (("identities", 1),), 3, 2, removed=("gone",), rewritten=("b",))
    assert (
        printed([pass_entry(stats)])
        == """
clean: nodes -1
fired            times  at
identities           1
nodes removed        1  gone
nodes rewritten      1  b"""
    )


@pytest.fixture
def compiled(onnx_file, tmp_path):
    source = onnx_file(MODEL)
    assert main(["compile", str(source), "-q", "-o", str(tmp_path / "m.lepton")]) == 0
    return tmp_path / "m.lepton"


def test_inspect_shows_the_passes_of_an_artifact(compiled, capfd):
    assert main(["inspect", "--passes", str(compiled)]) == 0
    out = capfd.readouterr().out
    assert "clean: nodes -1" in out
    assert "identities" in out and "nodes removed" in out
    assert main(["inspect", "--passes", "--json", str(compiled)]) == 0
    answer = json.loads(capfd.readouterr().out)
    passes = ["passes", "path", "plugins", "quantization"]
    assert sorted(answer) == ["compiled_by", "integers", *passes]
    assert answer["passes"][0]["counts"]["identities"] == 1
    assert main(["inspect", "--json", str(compiled)]) == 0
    assert json.loads(capfd.readouterr().out)["passes"] == answer["passes"]


def test_compile_explains_after_the_proof(onnx_file, tmp_path, capfd):
    source = onnx_file(MODEL)
    compile = ["compile", str(source), "-o", str(tmp_path / "m.lepton")]
    assert main([*compile, "--explain"]) == 0
    out = capfd.readouterr().out
    assert out.index("SQNR") < out.index("clean: nodes -1")
    assert main([*compile, "--explain", "-q"]) == 0
    quiet, err = capfd.readouterr()
    assert quiet.lstrip().startswith("clean: nodes -1") and err == ""
    assert main([*compile, "--explain", "--json"]) == 0
    passes = json.loads(capfd.readouterr().out)["passes"]
    assert passes == list(explain(tmp_path / "m.lepton").passes)
    assert main(compile) == 0
    assert "clean" not in capfd.readouterr().out


def test_an_artifact_of_an_older_version_says_that_it_has_less(linear_artifact, capfd):
    assert main(["inspect", "--passes", str(linear_artifact)]) == 3
    err = capfd.readouterr().err
    assert "compiled by leptonc 0.0.1, which did not record where its passes fired" in err
    assert "compile it again" in err
    assert main(["inspect", str(linear_artifact)]) == 0


def test_an_onnx_file_has_no_passes(linear_onnx):
    with pytest.raises(InputError, match="does not say which passes") as caught:
        explain(linear_onnx)
    assert "compile --explain" in (caught.value.fix or "")
