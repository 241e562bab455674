"""Each setting of a compile: its flag, its key in a settings file, its check and its help."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from leptonc.backends.base import DimRange
from leptonc.backends.option import options_of
from leptonc.backends.rows import BACKENDS
from leptonc.compiler.commands.compile import compile
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import CompileSettings, backend_options
from leptonc.compiler.settings.gates import Gate
from leptonc.compiler.settings.resolve import resolve_settings
from leptonc.compiler.settings.tolerance import Tolerance

# What is written after the source, the same in TOML, and what the field then holds.
OWN: dict[str, tuple[str, str, Any]] = {
    "target": ("-t ort-cpu -t tensorrt", '["ort-cpu", "tensorrt"]', ("ort-cpu", "tensorrt")),
    "precision": ("-p fp16", '"fp16"', "fp16"),
    "output": ("-o /a/b.lepton", '"/a/b.lepton"', Path("/a/b.lepton")),
    "opset": ("--opset 22", "22", 22),
    "require": ("--require native", '"native"', "native"),
    "calibration": ("-p int8 --calibration /r.json", '"/r.json"', Path("/r.json")),
    "quantization": ("-p int8 --quantization dynamic", '"dynamic"', "dynamic"),
    "range_method": ("-p int8 --range-method entropy", '"entropy"', "entropy"),
    "percentile": ("-p int8 --range-method percentile --percentile 99", "99", 99.0),
    "block_size": ("-p int8 --block-size 64", "64", 64),
    "inputs": ("--inputs /x.npz", '"/x.npz"', Path("/x.npz")),
    "tolerance": ("--tolerance sqnr=50", '"sqnr=50"', Tolerance(50.0, 1e-3)),
    "gate": ("--gate size=2kB", '"size=2kB"', (Gate("size", 2e3, "size=2kB"),)),
    "max_error": ("-p int8 --max-error sqnr=30", '"sqnr=30"', "sqnr=30"),
    "evaluate": ("-p int8 --max-drop 0 --evaluate accuracy", '"accuracy"', "accuracy"),
    "max_drop": ("-p int8 --evaluate accuracy --max-drop 0.5", "0.5", "0.5"),
    "recovery": ("--no-recovery", "false", False),
    "simplify": ("--simplify", "true", True),
    "plugins": ("--without-plugins", "false", False),
    "verify": ("--no-verify", "false", False),
}
OF_BACKENDS: dict[str, dict[str, tuple[str, str, Any]]] = {
    "tensorrt": {
        "flavour": ("--flavour classic", '"classic"', "classic"),
        "sm": ("--sm 8.6,120", "[86, 120]", ("86", "120")),
        "profile": ("--profile n=1:2:3", '["n=1:2:3"]', ((("n", DimRange(1, 2, 3)),),)),
        "builder_level": ("--builder-level 0", "0", 0),
        "workspace": ("--workspace 2MB", '"2MB"', 2 << 20),
        "weight_streaming": ("--weight-streaming", "true", True),
        "timing_cache": ("--timing-cache /t", '"/t"', Path("/t")),
        "version_compatible": ("--version-compatible", "true", True),
        "hardware_compatible": (
            "--hardware-compatible ampere_plus",
            '"ampere_plus"',
            "ampere_plus",
        ),
        "strip_weights": ("--strip-weights", "true", True),
    }
}


NOT_SETTINGS = ("source", "dry_run", "explain", "quiet", "as_json", "debug")


def context(words: str) -> click.Context:
    return compile.make_context("compile", ["net.py", *words.split()])


def flags(words: str) -> dict[str, Any]:
    params = context(words).params
    return {name: value for name, value in params.items() if name not in NOT_SETTINGS}


def from_flags(words: str) -> CompileSettings:
    return resolve_settings("net.py", flags(words))


def from_file(folder: Path, name: str, value: str, words: str) -> CompileSettings:
    """Give `name` in the file, and what else `words` ask for as flags."""
    (folder / "net.toml").write_text(f"[compile]\n{name} = {value}\n")
    return resolve_settings(str(folder / "net.py"), flags(words) | {name: None})


def test_the_tables_above_have_every_field():
    assert {*OWN, "source", "options"} == {each.name for each in fields(CompileSettings)}
    rows = {row.name: row.options for row in BACKENDS if row.options}
    assert {name: {each.name for each in fields(kind)} for name, kind in rows.items()} == {
        name: set(table) for name, table in OF_BACKENDS.items()
    }


@pytest.mark.parametrize("name", OWN)
def test_a_flag_and_a_key_give_the_same_setting(name, tmp_path):
    words, value, held = OWN[name]
    assert getattr(from_flags(words), name) == held
    assert getattr(from_file(tmp_path, name, value, words), name) == held
    assert held != options_of(CompileSettings)[name].default


@pytest.mark.parametrize(
    ("backend", "name"),
    [(backend, name) for backend in OF_BACKENDS for name in OF_BACKENDS[backend]],
)
def test_a_flag_and_a_key_give_the_same_option_of_a_backend(backend, name, tmp_path):
    words, value, held = OF_BACKENDS[backend][name]
    (row,) = (row for row in BACKENDS if row.name == backend)
    target = f"-t {row.targets[0].name}"
    assert getattr(from_flags(f"{target} {words}").options[backend], name) == held
    assert getattr(from_file(tmp_path, name, value, target).options[backend], name) == held
    assert held != options_of(row.options)[name].default


@pytest.mark.parametrize("name", [*OWN, *backend_options()])
def test_a_value_that_nothing_takes_is_refused_by_name(name, tmp_path):
    (tmp_path / "net.toml").write_text(f"[compile]\n{name} = {{}}\n")
    target = () if name in OWN else tuple(t.name for row in BACKENDS for t in row.targets)
    with pytest.raises(UsageError, match=f"{name}|{name.replace('_', '-')}"):
        resolve_settings(str(tmp_path / "net.py"), {"target": target})


@pytest.mark.parametrize("name", [*OWN, *backend_options()])
def test_each_has_its_flag_and_its_help(name):
    option = {**options_of(CompileSettings), **backend_options()}[name]
    (flag,) = (each for each in compile.params if each.name == name)
    assert flag.opts == list(option.flags)
    assert option.help and flag.help == option.help
    shown = " ".join(context("").get_help().split())
    assert f"{flag.opts[-1]} " in shown and option.help in shown


def test_settings_of_a_backend_are_echoed_among_the_others():
    settings = from_flags("-t tensorrt --sm 86 --workspace 1MB --strip-weights --flavour classic")
    assert [*settings.described()][:8] == [
        *("source", "target", "precision"),
        *("flavour", "sm", "profile", "workspace", "strip-weights"),
    ]


def test_help_needs_neither_torch_nor_onnx():
    code = (
        "import sys\n"
        "from leptonc.compiler.cli import main\n"
        "main(['compile', '--help'])\n"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxscript', 'onnxruntime', 'leptonc.passes.schedule'}\n"
        "sys.exit(str(heavy & sys.modules.keys() or ''))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert "--precision" in done.stdout
