"""What can be asked of TensorRT, and what is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorrt_graphs import graph

from leptonc.backends import find_backend, parse_target
from leptonc.backends.base import DimRange
from leptonc.backends.errors import UnsupportedInterfaceError, UnsupportedTargetError
from leptonc.backends.tensorrt.options import (
    TensorRTOptions,
    choose_flavour,
    parse_bytes,
    parse_capabilities,
    parse_profile,
)
from leptonc.backends.tensorrt.profiles import input_ranges


def test_capabilities_are_read_with_and_without_a_point():
    assert parse_capabilities("86, 8.9,120,86") == ("86", "89", "120")
    assert TensorRTOptions(sm=("120", "86")).capabilities() == ("8.6", "12.0")


@pytest.mark.parametrize("text", ["", "86,", "sm86", "1", "1234", "８６"])
def test_other_texts_are_no_capabilities(text):
    with pytest.raises(ValueError, match="is not a compute capability"):
        parse_capabilities(text)


def test_a_profile_is_read_in_any_order():
    assert parse_profile("sequence=16:128:512, batch=4") == (
        ("batch", DimRange(4, 4, 4)),
        ("sequence", DimRange(16, 128, 512)),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "batch",
        "batch=",
        "=1:2:3",
        "batch=1:2",
        "batch=3:2:1",
        "batch=0:1:2",
        "batch=1:2:-3",
        "batch=1:2:2147483648",
        "batch=1,batch=2",
    ],
)
def test_other_texts_are_no_profiles(text):
    with pytest.raises(ValueError, match="is not NAME=MIN:USUAL:MAX|given twice"):
        parse_profile(text)


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 << 30), ("512 mb", 512 << 20), ("1000", 1000)]
)
def test_sizes_are_read_with_their_units(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4TB", "-1", "0", "1.5GB"])
def test_other_texts_are_no_sizes(text):
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sm": ("90",)}, "--sm 90"),
        ({"sm": ("86", "70")}, "--sm 70"),
        ({"timing_cache": Path("c")}, "--timing-cache"),
        ({"version_compatible": True}, "--version-compatible"),
        ({"hardware_compatible": "ampere_plus"}, "--hardware-compatible"),
        ({"strip_weights": True}, "--strip-weights"),
        ({"flavour": "classic", "sm": ("86",)}, "--sm"),
    ],
)
def test_what_a_flavour_lacks_is_refused_by_name(options, told):
    target = replace(
        parse_target("tensorrt"), options=TensorRTOptions(**{"flavour": "rtx", **options})
    )
    with pytest.raises(UnsupportedTargetError, match=told) as caught:
        find_backend(target)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "options",
    [
        {"timing_cache": Path("c")},
        {"version_compatible": True},
        {"hardware_compatible": "ampere_plus"},
        {"strip_weights": True},
        {"weight_streaming": True, "workspace": 1 << 30, "builder_level": 3},
    ],
)
def test_the_classic_flavour_has_them(options):
    assert TensorRTOptions(**options).refusal("classic") is None


def test_an_option_of_the_other_flavour_says_what_to_do():
    options = TensorRTOptions(flavour="rtx", strip_weights=True)
    with pytest.raises(UnsupportedTargetError, match="--strip-weights") as refused:
        find_backend(replace(parse_target("tensorrt"), options=options))
    assert "--flavour classic" in str(refused.value.fix)


@pytest.mark.parametrize("precision", ["fp8", "auto"])
def test_a_precision_that_is_not_built_is_refused(precision):
    with pytest.raises(UnsupportedTargetError, match=precision):
        find_backend(parse_target("tensorrt", precision=precision))


@pytest.mark.parametrize(
    ("asked", "installed", "chosen"),
    [
        (None, {"rtx": True, "classic": False}, "rtx"),
        (None, {"rtx": False, "classic": True}, "classic"),
        (None, {"rtx": True, "classic": True}, "rtx"),
        (None, {"rtx": False, "classic": False}, "rtx"),
        ("classic", {"rtx": True, "classic": False}, "classic"),
    ],
)
def test_the_flavour_is_the_one_asked_for_or_installed(asked, installed, chosen):
    assert choose_flavour(asked, installed) == chosen


def test_an_unknown_flavour_is_refused():
    with pytest.raises(UnsupportedTargetError, match="'lite' is not a flavour"):
        choose_flavour("lite", {"rtx": True, "classic": True})


def test_each_input_gets_its_range():
    model = graph(
        "g (float[batch,3,sequence] x, float s) => (float[batch,3,sequence] y) { y = Mul(x, s) }"
    )
    ranges = input_ranges(model, {"batch": DimRange(1, 2, 4), "sequence": DimRange(5, 6, 7)})
    assert ranges == {
        "x": {"min": [1, 3, 5], "opt": [2, 3, 6], "max": [4, 3, 7]},
        "s": {"min": [], "opt": [], "max": []},
    }


def test_a_dimension_without_a_range_is_refused():
    model = graph("g (float[batch,3] x) => (float[batch,3] y) { y = Relu(x) }")
    with pytest.raises(UnsupportedTargetError, match="axis 0 of the input 'x'"):
        input_ranges(model, {})


def test_an_input_of_more_axes_than_tensorrt_takes_is_refused():
    shape = ",".join("1" * 9)
    model = graph(f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}")
    with pytest.raises(UnsupportedInterfaceError, match="rank 9"):
        input_ranges(model, {})
