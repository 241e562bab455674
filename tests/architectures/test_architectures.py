"""Every tiny model, exported and rewritten for every target: right, settled, and no worse.

The export takes most of the time, so the tests of one model share it: `compile_model` gets it
in place of one of its own.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import onnx
import onnx_ir as ir
import pytest
from architectures import TINY_MODELS
from coverage_table import COMMAND, PAGE, better, parse, worse
from measure import RECIPES, TOLERANCE, Rewritten, Subject, row_of

from leptonc.compiler import driver
from leptonc.compiler.export.onnx_export import ExportedGraph
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.verification.comparison import compare_outputs
from leptonc.passes import TARGETS, optimize
from leptonc.passes import schedule as stages
from leptonc.runtime import load

COMMITTED = {row.key: row for row in parse(PAGE.read_text(encoding="utf-8"))}


@pytest.fixture(scope="module", params=TINY_MODELS)
def subject(request: pytest.FixtureRequest) -> Subject:
    """One model, exported once for the tests of this file."""
    return Subject.of(TINY_MODELS[request.param])


@pytest.fixture(scope="module")
def rewritten(subject: Subject) -> Mapping[str, Rewritten]:
    """What the passes make of it, by target."""
    return {target: subject.rewritten(target) for target in TARGETS}


def test_the_outputs_are_those_of_the_module(rewritten):
    problems = {
        target: [error for error in result.errors if error.problem is not None]
        for target, result in rewritten.items()
    }
    assert problems == {target: [] for target in TARGETS}


def test_the_passes_are_done(rewritten):
    for target, result in rewritten.items():
        again = optimize(result.model.clone(), target=target)
        assert [(step.name, step.counts) for step in again if step.changed] == [], target


@pytest.mark.parametrize("target", ["generic", "ort-cpu"])
def test_stages_that_say_so_run_in_any_order(subject, rewritten, target, monkeypatch):
    turned = tuple(
        replace(stage, passes=stage.passes[::-1]) if stage.any_order else stage
        for stage in stages.STAGES
    )
    assert turned != stages.STAGES
    monkeypatch.setattr(stages, "STAGES", turned)
    model = subject.exported.model.clone()
    optimize(model, target=target)
    assert operators(model) == operators(rewritten[target].model)


def operators(model: ir.Model) -> Counter[tuple[str, str]]:
    """Return how many nodes there are of each operator."""
    return Counter((node.domain, node.op_type) for node in model.graph.all_nodes())


def test_the_standard_forms_are_valid_onnx(rewritten):
    for target in ("generic", "primitive"):
        model = rewritten[target].model
        assert {node.domain for node in model.graph.all_nodes()} == {""}
        onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_it_does_no_worse_than_its_row(subject, rewritten):
    row = row_of(subject, rewritten)
    committed = COMMITTED.get(row.key)
    assert committed is not None, f"docs/coverage.md has no row for {row.key}: run {COMMAND}"
    assert worse(row, committed) == [], f"if that is right, run {COMMAND}"
    if better(row, committed):
        warnings.warn(f"{subject.tiny.name} beats its row: run {COMMAND}", stacklevel=1)


def test_it_compiles_and_loads(subject, tmp_path, monkeypatch):
    def exported_already(*_: object, **__: object) -> ExportedGraph:
        return ExportedGraph(subject.exported.model.clone())

    monkeypatch.setattr("leptonc.compiler.subject.export", exported_already)
    artifact = tmp_path / "tiny.lepton"
    driver.compile_model(CompileSettings(f"{RECIPES}:{subject.tiny.name}", artifact))
    with load(artifact) as session:
        for trial in subject.trials:
            errors = compare_outputs(trial.expected, session.run(trial.inputs), TOLERANCE)
            assert [error for error in errors if error.problem is not None] == []
