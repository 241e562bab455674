"""Targets with what was asked of their backends, and the ranges of sizes to build for."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonc.backends.base import DimRange
from leptonc.backends.tensorrt.options import TensorRTOptions
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.sources.dimensions import DynamicDim
from leptonc.compiler.targets import resolve_profiles, targets_of

AXES = {
    "ids": {0: DynamicDim("batch", 1, 64), 1: DynamicDim("sequence", 1, None)},
    "mask": {0: DynamicDim("batch", 1, 64)},
}
SIZES = {"batch": 2, "sequence": 16}


def test_what_a_profile_leaves_out_has_the_bounds_of_the_source():
    assert resolve_profiles([(("sequence", DimRange(1, 8, 32)),)], AXES, SIZES) == (
        {"batch": DimRange(1, 2, 64), "sequence": DimRange(1, 8, 32)},
    )


@pytest.mark.parametrize(
    ("profiles", "told"),
    [
        ([], "'sequence' has no upper bound"),
        ([(("width", DimRange(1, 2, 3)),)], "a dimension 'width' that the source does not have"),
        (
            [(("sequence", DimRange(1, 8, 32)), ("batch", DimRange(1, 2, 65)))],
            "leaves the bounds of the source, 1 to 64",
        ),
    ],
)
def test_profiles_that_do_not_fit_the_source_are_refused(profiles, told):
    with pytest.raises(UsageError, match=told):
        resolve_profiles(profiles, AXES, SIZES)


def test_each_target_gets_the_options_of_its_backend():
    asked = TensorRTOptions(sm=("86",))
    settings = CompileSettings(
        "net.py",
        Path("net.lepton"),
        target=("ort-cpu", "tensorrt"),
        options={"tensorrt": asked},
    )
    assert [target.options for target in targets_of(settings)] == [None, asked]


def test_without_a_word_the_options_are_the_defaults():
    settings = CompileSettings("net.py", Path("net.lepton"), target=("tensorrt",))
    assert [target.options for target in targets_of(settings)] == [TensorRTOptions()]
