"""How a gate is written, and when it is breached."""

from __future__ import annotations

import pytest

from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.gates import Gate


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("size=400MB", 4e8),
        ("size=3 B", 3.0),
        ("load=0.5s", 0.5),
        ("latency=20ms", 0.02),
        ("sqnr=90dB", 90.0),
        ("sqnr=90", 90.0),
    ],
)
def test_a_gate_is_read_with_its_unit(text, bound):
    gate = Gate.parse(text)
    assert gate == Gate(text.partition("=")[0], pytest.approx(bound), text)


@pytest.mark.parametrize("text", ["", "size", "size=", "size=3 parsecs", "speed=3", "load=-1s"])
def test_other_texts_are_no_gates(text):
    with pytest.raises(UsageError, match="is not understood"):
        Gate.parse(text)


def test_a_size_may_not_be_larger_and_an_sqnr_not_lower():
    assert Gate.parse("size=1kB").breach(1000.0) is None
    assert Gate.parse("size=1kB").breach(1001.0) == "size is 1,001 bytes, the gate size=1kB"
    assert Gate.parse("sqnr=90dB").breach(90.0) is None
    assert Gate.parse("sqnr=90dB").breach(89.0) == "sqnr is 89.0 dB, the gate sqnr=90dB"
    assert Gate.parse("load=1ms").breach(0.002) == "load is 2.0 ms, the gate load=1ms"
