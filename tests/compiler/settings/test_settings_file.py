"""What a settings file can hold, and how a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from leptonc.backends.option import options_of
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import CompileSettings
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.compiler.settings.settings_file import read_settings_file

OWN = options_of(CompileSettings)


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


def test_paths_start_from_the_folder_of_the_file(tmp_path):
    file = tmp_path / "net.toml"
    file.write_text('[compile]\ninputs = "in/x.npz"\noutput = "/y.lepton"\ntiming_cache = "c"\n')
    assert read_settings_file(file, OWN) == {
        "inputs": tmp_path / "in" / "x.npz",
        "output": Path("/y.lepton"),
        "timing_cache": tmp_path / "c",
    }


def test_an_unknown_setting_is_told_the_known_ones(tmp_path):
    file = tmp_path / "net.toml"
    file.write_text("[compile]\nspeed = 3\n")
    with pytest.raises(UsageError) as caught:
        read_settings_file(file, OWN)
    told = str(caught.value.fix).removeprefix("use one of: ").split(", ")
    assert told == sorted(told)
    assert {"precision", "flavour", "output"} <= set(told)
    assert not {"source", "options"} & set(told)
