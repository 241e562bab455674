"""From a settings file and flags to settings, with the checks that concern several of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leptonc.backends.option import options_of
from leptonc.backends.rows import BACKENDS
from leptonc.compiler.errors import UsageError
from leptonc.compiler.settings.compile_settings import QUANTIZED, CompileSettings, backend_options
from leptonc.compiler.settings.settings_file import read_setting, read_settings_file
from leptonc.compiler.settings.tolerance import Tolerance


def resolve_settings(source: str, flags: Mapping[str, Any]) -> CompileSettings:
    """Combine the TOML file beside the source, if there is one, with the flags given.

    Args:
        source: The source as the user named it.
        flags: Settings by field name, and options of backends by theirs, as the command line
            spells them; None or an empty tuple means "not given".

    Raises:
        UsageError: The file is not TOML, or holds an unknown name or a wrong value; or settings do
            not go together: options of another target, goals of another precision, an output that
            is also an input.
    """
    own = options_of(CompileSettings)
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    file = Path(source).with_suffix(".toml")
    values = read_settings_file(file, own) if source.endswith(".py") and file.is_file() else {}
    values |= {
        name: read_setting(own[name], value) if name in own else value
        for name, value in given.items()
    }
    values.setdefault("output", Path(f"{Path(source.rpartition(':')[2] or source).stem}.lepton"))
    if "tolerance" in values:
        precision = values.get("precision", own["precision"].default)
        values["tolerance"] = Tolerance.parse(values["tolerance"], precision)
    asked = {name: values.pop(name) for name in backend_options() if name in values}
    options = _backend_options(asked, values.get("target", own["target"].default), source)
    settings = CompileSettings(source, options=options, **values)
    # Malformed goals are found out now, not after the model is exported.
    _ = settings.goals
    _require_quantized(settings)
    _require_other_file(settings)
    return settings


def _backend_options(
    asked: Mapping[str, Any], targets: Sequence[str], source: str
) -> dict[str, Any]:
    """Return the options of each backend that a target needs, by the name of the backend.

    Raises:
        UsageError: A value makes no sense, or none of these backends has the option.
    """
    kinds = {
        row.name: row.options
        for row in BACKENDS
        if row.options and any(target.name in targets for target in row.targets)
    }
    known = {name for kind in kinds.values() for name in options_of(kind)}
    if foreign := [name for name in asked if name not in known]:
        raise _foreign(foreign)
    return {backend: _read(kind, asked, source) for backend, kind in kinds.items()}


def _read(kind: type[Any], asked: Mapping[str, Any], source: str) -> Any:
    read = {}
    for name, option in options_of(kind).items():
        if name not in asked:
            continue
        try:
            read[name] = option.read(asked[name])
        except (TypeError, ValueError) as error:
            raise UsageError(f"{option.spelt}: {error}", where=source) from error
    return kind(**read)


def _foreign(names: Sequence[str]) -> UsageError:
    """Return the refusal of options that belong to other targets than those of the compile."""
    rows = [row for row in BACKENDS if row.options and set(names) & set(options_of(row.options))]
    targets = " or ".join(target.name for row in rows for target in row.targets)
    return UsageError(
        f"{', '.join('--' + name.replace('_', '-') for name in names)}: "
        f"only the target {targets} has this",
        fix=f"add -t {targets}, or leave it out",
    )


def _require_quantized(settings: CompileSettings) -> None:
    """Refuse settings of quantisation that mean nothing, or nothing that exists."""
    if settings.precision not in QUANTIZED:
        for name in ("calibration", "quantization", "range_method", "percentile", "block_size"):
            if getattr(settings, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} is for quantised models; the precision is "
                    f"{settings.precision}",
                    fix="add -p int8, or leave it out",
                )
    elif settings.percentile is not None:
        if settings.range_method != "percentile":
            raise UsageError(
                "--percentile is for --range-method percentile", fix="add it, or leave both out"
            )
        if not 50.0 < settings.percentile <= 100.0:
            raise UsageError(
                f"a percentile of {settings.percentile:g} leaves nothing to quantise",
                fix="use a number above 50 and up to 100, such as 99.99",
            )


def _require_other_file(settings: CompileSettings) -> None:
    """Refuse to write the artifact over what it is made from."""
    for name, path in (
        ("source", Path(settings.source)),
        ("inputs", settings.inputs),
        ("calibration table", settings.calibration),
    ):
        if path is None or not path.is_file() or not settings.output.is_file():
            continue
        if path.samefile(settings.output):
            raise UsageError(
                f"the output would overwrite the {name}",
                where=str(settings.output),
                fix="give the artifact another name with -o",
            )
