"""The settings of a calibration: their flags, and what is echoed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from leptonc.backends.option import options_of
from leptonc.compiler.commands.calibrate import calibrate
from leptonc.compiler.settings.calibration_settings import CalibrationSettings, Checkpoint
from leptonc.compiler.settings.compile_settings import CompileSettings

MODEL = CompileSettings("net.py", Path("unused.lepton"))


def test_every_field_but_the_model_has_its_flag_and_its_help():
    options = options_of(CalibrationSettings)
    assert {*options, "model"} == {field.name for field in fields(CalibrationSettings)}
    flags = {flag.name: flag for flag in calibrate.params}
    assert {name: flags[name].help for name in options} == {
        name: option.help for name, option in options.items()
    }


def test_flags_that_state_a_default_have_that_of_the_field():
    given = calibrate.make_context("calibrate", ["net.py"]).params
    assert given["output"] == CalibrationSettings(MODEL).output == Path("ranges.json")
    assert given["checkpoint_seconds"] == CalibrationSettings(MODEL).checkpoint_seconds == 60.0


def test_the_checkpoint_lies_beside_the_table():
    settings = CalibrationSettings(MODEL, output=Path("a/r.json"), resume=True)
    assert settings.checkpoint == Checkpoint(Path("a/r.json.partial"), True, 60.0)


def test_what_is_asked_is_echoed():
    described = CalibrationSettings(MODEL, samples=3, data="x.npz").described()
    assert described["source"] == "net.py"
    assert described["samples"] == "at most 3"
    assert described["data"] == "x.npz"
    assert "target" not in described
