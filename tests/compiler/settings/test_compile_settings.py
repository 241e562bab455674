from __future__ import annotations

from pathlib import Path

import pytest

from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import resolve_settings
from leptonc.compiler.verification.comparison import Tolerance


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[compile", "not valid TOML"),
        ("[compile]\nspeed = 3", "unknown setting 'speed'"),
        ("[compile]\nopset = 'x'", "wrong type"),
        ("[compile]\nverify = 1", "wrong type"),
        ("[compile]\nprecision = 'fp31'", "is not one of"),
        ("[compile]\ntarget = [3]", "wrong type"),
        ("[compile]\nopset = 99", "opset = 99 is not from 18 to 23"),
        ("compile = 3", "its only table is [compile]"),
        ("[compiler]\nopset = 20", "its only table is [compile]"),
    ],
)
def test_a_wrong_file_is_a_usage_error(tmp_path, text, message):
    (tmp_path / "net.toml").write_text(text)
    with pytest.raises(UsageError, match=message.replace("[", r"\[")) as caught:
        resolve_settings(str(tmp_path / "net.py"), {})
    assert caught.value.exit_code == 2
    assert str(tmp_path / "net.toml") in str(caught.value)


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
