"""From a model's source to a finished artifact, as a program may ask for it (docs/python-api.md).

What compiles is imported when it is first asked for: the command line starts without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leptonc.compiler.calibrate import CalibrationResult, calibrate_model
    from leptonc.compiler.driver import CompileResult, compile_model
    from leptonc.compiler.settings.calibration_settings import CalibrationSettings
    from leptonc.compiler.settings.compile_settings import CompileSettings

__all__ = [
    "CalibrationResult",
    "CalibrationSettings",
    "CompileResult",
    "CompileSettings",
    "calibrate_model",
    "compile_model",
]


def __getattr__(name: str) -> Any:
    """Import what was asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from leptonc.compiler import calibrate, driver
    from leptonc.compiler.settings import calibration_settings, compile_settings

    homes = (driver, calibrate, compile_settings, calibration_settings)
    return next(vars(home)[name] for home in homes if name in vars(home))
