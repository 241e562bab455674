from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leptonc.compiler.settings.tolerance import Tolerance
from leptonc.compiler.verification import trials as verify
from leptonc.runtime.arrays import save_arrays

RIGHT = np.arange(1, 5, dtype=np.float32)


@pytest.mark.parametrize(
    ("answers", "passed"),
    [((RIGHT, RIGHT), True), ((RIGHT, -RIGHT), False), ((-RIGHT, RIGHT), False)],
    ids=["both right", "wrong when packed", "wrong when mapped"],
)
def test_a_static_model_is_proven_before_and_after_it_is_packed(monkeypatch, answers, passed):
    def child(artifact, arguments, **options):
        targets = arguments[1::2]
        for target, answer in zip(targets, answers, strict=True):
            save_arrays(Path(target), {"y": answer})

    monkeypatch.setattr(verify, "_run_child", child)
    trial = verify.Trial({}, {"x": RIGHT}, {"y": RIGHT})
    (result,) = verify.run_trials("model.lepton", (trial,), Tolerance())
    assert result.passed is passed
