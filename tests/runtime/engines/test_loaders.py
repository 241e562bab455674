"""The rows of engines: ours, and those that other distributions bring."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acme_engine import ENGINE, acme_artifact
from small_artifacts import expected, linear_weights, sample

from leptonc.backends import parse_target
from leptonc.runtime import load
from leptonc.runtime.engines.loaders import DEMANDS, GROUP, ROWS
from leptonc.runtime.engines.row import EngineRow
from leptonc.runtime.errors import (
    ArtifactError,
    EnvironmentProblem,
    IntegrityError,
    UnsupportedError,
)

Install = Callable[..., Path]


@pytest.fixture
def acme(install_plugin: Install) -> Callable[[], list[str]]:
    """Install the engine; what is returned gives what happened to it."""
    install_plugin(ENGINE, {"acme-cpu": "ROW"}, group=GROUP, distribution="acme-plugin")
    return lambda: sys.modules["acme_plugin"].EVENTS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return acme_artifact(tmp_path / "m.lepton")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.target)
def test_a_row_names_the_target_that_compiles_for_it(row: EngineRow) -> None:
    target = parse_target(row.target)
    assert (target.backend, target.device) == (row.backend, row.device)
    assert set(DEMANDS) <= {each.backend for each in ROWS}


def test_an_engine_of_another_distribution_runs(path: Path, acme: Any) -> None:
    x = sample()
    answer = x @ linear_weights()["w"]
    with load(path, variant="acme", threads=3) as session:
        assert session.variant == "acme"
        np.testing.assert_array_equal(session(x=x)["y"], answer)
        np.testing.assert_array_equal(session.bind({"x": x}).run()["y"], answer)
        with pytest.raises(UnsupportedError, match="'acme' starts nothing"):
            session.run_async({"x": x})
        session.warm_up()
    assert acme() == ["prepared", "opened", "finished", "closed"]


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_ours_come_first_on_the_same_device(device: str, path: Path, acme: Any) -> None:
    with load(path, device=device) as session:
        assert session.variant == "ort-cpu"
        np.testing.assert_allclose(session(x=sample())["y"], expected(sample()), rtol=1e-5)
    assert "acme_plugin" not in sys.modules


def test_it_never_sees_a_damaged_file(path: Path, acme: Any) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(linear_weights()["w"].tobytes()[:64])] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        load(path, variant="acme")
    assert acme() == ["prepared"]


def test_it_checks_demands_of_its_own(tmp_path: Path, acme: Any) -> None:
    path = acme_artifact(tmp_path / "m.lepton", cores=65)
    with pytest.raises(ArtifactError, match="so many cores"):
        load(path, variant="acme")
    path = acme_artifact(tmp_path / "n.lepton", engine_min="latest")
    with pytest.raises(ArtifactError, match="'latest' is not a version"):
        load(path, variant="acme")


def test_without_it_the_other_variants_load(path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no variant 'acme' that this build can run"):
        load(path, variant="acme")
    assert load(path, device="auto").variant == "ort-cpu"


BROKEN = [
    ("raise ImportError('no libacme')", "cannot be imported: ImportError: no libacme"),
    ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    ("ROW = 3", "it is of type int, and no EngineRow"),
    (ENGINE.replace('"acme", "cpu",', '"acme", "gpu",'), "its row is for 'acme' on 'gpu'"),
    (ENGINE.replace("AcmeLoader)", "lambda: 1 / 0)"), "ZeroDivisionError"),
]


@pytest.mark.parametrize(("code", "words"), BROKEN)
def test_one_that_cannot_be_used_is_named_with_its_distribution(
    code: str, words: str, path: Path, install_plugin: Install
) -> None:
    install_plugin(code, {"acme-cpu": "ROW"}, group=GROUP, distribution="acme-plugin")
    with pytest.raises(EnvironmentProblem) as caught:
        load(path, variant="acme")
    assert words in caught.value.what
    assert "the engine 'acme-cpu' of acme-plugin 1.2.0" in caught.value.what
    assert caught.value.fix is not None
    assert load(path).variant == "ort-cpu"


def test_two_of_one_name_are_refused(path: Path, acme: Any, install_plugin: Install) -> None:
    install_plugin(ENGINE, {"acme-cpu": "ROW"}, group=GROUP, distribution="other-engine")
    with pytest.raises(EnvironmentProblem, match="other-engine 1.2.0 brings one of the same name"):
        load(path, variant="acme")


def test_auto_says_why_an_engine_that_cannot_be_used_is_passed_over(
    tmp_path: Path, install_plugin: Install, caplog: pytest.LogCaptureFixture
) -> None:
    """On a GPU it would come first; its error is a lack of this machine, like any other."""
    path = acme_artifact(tmp_path / "m.lepton", device="gpu")
    install_plugin("raise ImportError", {"acme-gpu": "R"}, group=GROUP, distribution="acme-plugin")
    with caplog.at_level(logging.WARNING), load(path, device="auto") as session:
        assert session.variant == "ort-cpu"
    [text] = [entry.getMessage() for entry in caplog.records if entry.name == "leptonc.runtime"]
    assert "the variant 'acme' is not used: the engine 'acme-gpu' of acme-plugin 1.2.0" in text


def test_a_load_for_our_engines_does_not_look_for_others(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "entry_points", None)
    assert load(linear).variant == "ort-cpu"
