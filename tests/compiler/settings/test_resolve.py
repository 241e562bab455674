"""From a settings file and flags to settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.compiler.settings.tolerance import Tolerance


def test_defaults_follow_the_source(tmp_path):
    settings = resolve_settings(str(tmp_path / "net.py"), {"output": None, "target": ()})
    assert settings.output == Path("net.lepton")
    assert settings.target == ("ort-cpu",)
    assert settings.verify is True


def test_flags_win_over_the_file(tmp_path):
    (tmp_path / "net.toml").write_text(
        '[compile]\nopset = 21\ntolerance = "sqnr=50"\noutput = "out/net.lepton"\n'
        'target = "ort-cpu"\nverify = false\n'
    )
    settings = resolve_settings(str(tmp_path / "net.py"), {"opset": 19, "verify": None})
    assert settings.opset == 19
    assert settings.verify is False
    assert settings.tolerance == Tolerance(sqnr_db=50)
    assert settings.output == tmp_path / "out" / "net.lepton"


def test_every_setting_is_echoed():
    described = resolve_settings("net.py", {}).described()
    assert {"source", "target", "precision", "opset", "output", "verify"} <= described.keys()


@pytest.mark.parametrize("overwritten", ["source", "inputs"])
def test_the_output_never_overwrites_what_it_is_made_from(tmp_path, overwritten):
    files = {name: tmp_path / name for name in ("source", "inputs")}
    for path in files.values():
        path.touch()
    flags = {"output": files[overwritten], "inputs": files["inputs"]}
    with pytest.raises(UsageError, match=f"would overwrite the {overwritten}"):
        resolve_settings(str(files["source"]), flags)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"quantization": "static"}, "--quantization is for quantised models"),
        ({"block_size": 32, "precision": "fp32"}, "--block-size is for quantised"),
        ({"percentile": 99.0, "precision": "int8"}, "--range-method percentile"),
        (
            {"percentile": 40.0, "precision": "int8", "range_method": "percentile"},
            "leaves nothing",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(flags, words):
    with pytest.raises(UsageError, match=words):
        resolve_settings("model.onnx", flags)


def test_flags_and_a_settings_file_say_the_same(tmp_path):
    recipe = tmp_path / "net.py"
    recipe.write_text("")
    flags = resolve_settings(
        str(recipe),
        {"target": ("tensorrt",), "sm": "86,89", "profile": ("batch=1:2:4",), "workspace": "1GB"},
    )
    recipe.with_suffix(".toml").write_text(
        '[compile]\ntarget = "tensorrt"\nsm = [86, 89]\nprofile = "batch=1:2:4"\n'
        'workspace = "1GB"\n'
    )
    assert resolve_settings(str(recipe), {}).options == flags.options
    described = flags.described()
    assert described["sm"] == "8.6, 8.9"
    assert described["profile"] == "batch=1:2:4"
    assert described["workspace"] == str(1 << 30)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"flavour": "lite"}, "'lite' is not one of rtx, classic"),
        ({"sm": "x"}, "sm: 'x' is not a compute capability"),
        ({"profile": ["batch"]}, "profile: 'batch' is not NAME=MIN:USUAL:MAX"),
        ({"profile": [3]}, "is not a list of texts"),
        ({"builder_level": 6}, "builder-level: 6 is not a level from 0 to 5"),
        ({"workspace": "much"}, "workspace: 'much' is not a size"),
        ({"weight_streaming": "yes"}, "'yes' is neither true nor false"),
        ({"hardware_compatible": "all"}, "'all' is not one of"),
    ],
)
def test_values_that_make_no_sense_are_refused(values, told):
    with pytest.raises(UsageError, match=told):
        resolve_settings("net.py", {"target": ("tensorrt",), **values})


def test_options_without_the_target_are_refused():
    with pytest.raises(UsageError, match="--sm: only the target tensorrt has this"):
        resolve_settings("net.py", {"sm": "86"})
