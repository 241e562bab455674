"""`leptonc verify` against a source: whose mistake a difference is, before any node is searched."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes import MLP, write_recipe

from leptonc.compiler.driver import compile_model
from leptonc.compiler.errors import VerificationError
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.verification.finished_artifact import recheck

SEED = "torch.manual_seed(0)"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    recipe = write_recipe(tmp_path)
    compile_model(CompileSettings(str(recipe), tmp_path / "m.lepton"))
    return tmp_path / "m.lepton"


def test_the_source_it_was_compiled_from_is_the_same(artifact: Path) -> None:
    found = recheck(artifact, str(artifact.with_name("mlp.py")), None)
    assert (found.compared, found.same_source) == (True, True)


@pytest.mark.parametrize(
    ("line", "told", "fix"),
    [
        ("torch.manual_seed(7)", "not the source that the artifact was compiled from", "give the"),
        ("torch.seed()", "other weights each time it is opened", "torch.manual_seed"),
    ],
)
def test_another_source_is_said_first(artifact: Path, line: str, told: str, fix: str) -> None:
    assert SEED in MLP
    artifact.with_name("mlp.py").write_text(MLP.replace(SEED, line))
    with pytest.raises(VerificationError, match=told) as caught:
        recheck(artifact, str(artifact.with_name("mlp.py")), None)
    assert fix in str(caught.value.fix)
    assert "last changed by" not in str(caught.value)
