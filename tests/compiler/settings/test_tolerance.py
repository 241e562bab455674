"""How a tolerance is written."""

from __future__ import annotations

import pytest

from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.tolerance import Tolerance


def test_tolerance_is_read():
    assert Tolerance.parse("sqnr=30") == Tolerance(30.0, 1e-3)
    assert Tolerance.parse("sqnr=30,relative=0.5") == Tolerance(30.0, 0.5)


@pytest.mark.parametrize("text", ["30", "db=30", "sqnr=", "sqnr=high", "sqnr=-1", ""])
def test_a_wrong_tolerance_is_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        Tolerance.parse(text)
    assert caught.value.exit_code == 2
