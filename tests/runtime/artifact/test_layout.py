"""Artifacts whose convolutions are rearranged at load: the optimiser must see the weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_artifacts import build, manifest, parse, spec

from leptonc.backends import find_backend, parse_target
from leptonc.backends.pack import pack
from leptonc.runtime import Session, load
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.artifact.writer import stage_artifact
from leptonc.runtime.engines.ort import library as ort
from leptonc.runtime.engines.ort.cpu import OrtEngine
from leptonc.runtime.errors import EngineError, IntegrityError

CONV = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[n, 3, 8, 8] x) => (float[n, 16, 8, 8] y) {
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
  b = Relu(a)
  y = Conv <kernel_shape = [1, 1]> (b, v)
}
"""
N = {"name": "n", "min": 1, "max": None}
INPUTS, OUTPUTS = [spec("x", "float32", N, 3, 8, 8)], [spec("y", "float32", N, 16, 8, 8)]


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    shapes = {"w": (32, 3, 3, 3), "v": (16, 32, 1, 1)}
    return {n: generator.standard_normal(s).astype(np.float32) for n, s in shapes.items()}


def reference(x: np.ndarray) -> np.ndarray:
    w, v = weights()["w"], weights()["v"]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    hidden = np.maximum(np.einsum("nchwij,ocij->nohw", windows, w, optimize=True), 0)
    return np.einsum("nchw,oc->nohw", hidden, v[:, :, 0, 0])


def check(session: Session) -> None:
    x = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(session(x=x)["y"], reference(x), rtol=1e-4, atol=1e-4)


@pytest.fixture
def convolution(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    return build(folder / "conv.lepton", parse(CONV, weights()), INPUTS, OUTPUTS, tmp_path / "w")


def test_a_file_is_read_in_place(convolution: Path) -> None:
    session = load(convolution)
    assert session.manifest["variants"][0]["options"]["optimize"] == "layout"
    check(session)
    convolution.unlink()
    check(session)


def test_convolutions_rearranged_in_advance_give_the_same_answers(tmp_path: Path) -> None:
    path = build(
        tmp_path / "m.lepton", parse(CONV, weights()), INPUTS, OUTPUTS, tmp_path, require="native"
    )
    session = load(path)
    variant = session.manifest["variants"][0]
    assert variant["options"]["optimize"] == "none"
    assert variant["demands"]["instructions"]
    check(session)


def test_a_symbolic_link_is_followed(convolution: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "model.lepton"
    link.parent.mkdir()
    link.symlink_to(os.path.relpath(convolution, link.parent))
    check(load(link))


def test_a_relative_path_with_spaces_works(
    convolution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(convolution.parent)
    shutil.copy(convolution, "ein Modell ü.lepton")
    check(load("ein Modell ü.lepton"))


def test_a_staged_artifact_has_no_name_and_works(tmp_path: Path) -> None:
    target = parse_target("ort-cpu")
    model = parse(CONV, weights())
    sections, variants = pack([find_backend(target).build(model, target, tmp_path / "work")])
    with stage_artifact(tmp_path / "m.lepton") as staged:
        staged.write(sections, manifest(INPUTS, OUTPUTS, variants=variants))
        check(load(staged.readable_path))


def test_a_file_that_was_removed_after_it_was_opened_is_read_from_the_mapping(
    convolution: Path,
) -> None:
    with open_artifact(convolution, {}) as artifact:
        assert artifact.current_path() == str(convolution)
        convolution.unlink()
        assert artifact.current_path() is None
        engine = ort.import_engine()
        variant = artifact.manifest.variants[0]
        loaded = OrtEngine(engine, artifact, variant, threads=1, spinning=False)
    x = np.ones((1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(loaded.run({"x": x})["y"], reference(x), rtol=1e-4, atol=1e-4)


def test_a_file_that_was_replaced_is_not_read_by_name(convolution: Path) -> None:
    with open_artifact(convolution, {}) as artifact:
        other = convolution.with_name("other")
        shutil.copy(convolution, other)
        other.replace(convolution)
        assert artifact.current_path() is None
        with pytest.raises(IntegrityError, match="replaced while it was being loaded"):
            artifact.check_not_replaced()


def test_the_optimiser_never_reads_a_weight_from_its_declared_place(linear: Path) -> None:
    """ONNX Runtime's layout transformer ignores weights given in memory; it must fail, not guess."""
    engine = ort.import_engine()
    values = {n: ort.share_weight(engine, "float32", a) for n, a in weights().items()}
    graph = serialised(parse(CONV, weights()))
    with pytest.raises(ort.engine_failures(engine)):
        ort.open_session(engine, graph, values, ort.session_options(engine), {"optimize": "layout"})


def serialised(model: Any) -> bytes:
    import onnx_ir as ir

    model.graph.initializers.clear()
    return ir.to_proto(model).SerializeToString()


def test_an_address_in_a_graph_is_refused(linear: Path, tmp_path: Path) -> None:
    """A graph may not make the engine read memory of this process."""
    engine = ort.import_engine()
    from leptonc.runtime.engines.ort.declarations import Declaration, declare_weights

    place = Declaration("w", "float32", (32, 16), "*/_ORT_MEM_ADDR_/*", id(linear), 2048)
    with open_artifact(linear, {}) as artifact:
        graph = bytes(artifact.view("ort-cpu/graph")) + declare_weights([place])
    with pytest.raises(ort.engine_failures(engine), match="not allowed"):
        ort.open_session(engine, graph, {}, ort.session_options(engine), {})


def test_an_unknown_file_in_a_graph_is_an_engine_error(
    convolution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_artifact(convolution, {}) as artifact:
        engine = ort.import_engine()
        monkeypatch.setattr(artifact, "current_path", lambda: "/gone/model.lepton")
        with pytest.raises(EngineError, match="cannot load the graph"):
            OrtEngine(engine, artifact, artifact.manifest.variants[0], threads=1, spinning=False)
