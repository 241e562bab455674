"""Opens the variant that a load is to use, and says so when it is not the first choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leptonc.runtime.artifact.manifest import Variant
from leptonc.runtime.artifact.reader import Artifact, Verification, available_threads
from leptonc.runtime.engines.load_options import LoadOptions
from leptonc.runtime.engines.loaders import find_loader
from leptonc.runtime.errors import EnvironmentProblem, LeptonError

if TYPE_CHECKING:
    from leptonc.runtime.engines.base import Engine


def open_first(
    artifact: Artifact, variants: Sequence[Variant], options: LoadOptions, *, verify: bool
) -> tuple[Variant, Engine]:
    """Open the first of these variants that works on this machine.

    Only what the machine lacks moves on to the next one; a damaged file or a graph that an engine
    refuses is an error at once. What was passed over is logged as a warning.

    Args:
        artifact: Open.
        variants: In the order in which they are tried.
        options: For the engine.
        verify: Check every hash before an engine sees a byte.

    Raises:
        LeptonError: None works; the error is that of the first.
    """
    verification = Verification(artifact, available_threads()) if verify else None
    passed: list[tuple[Variant, EnvironmentProblem]] = []
    try:
        for variant in variants:
            try:
                engine = _open(artifact, variant, options, verification)
            except EnvironmentProblem as error:
                passed.append((variant, error))
                continue
            _log_choice(artifact, variant, passed)
            return variant, engine
    except LeptonError:
        if verification is not None:
            verification.cancel()
        raise
    if verification is not None:
        verification.cancel()
    first = passed[0][1]
    for other, problem in passed[1:]:
        first.add_note(f"variant {other.name!r} was tried as well: {problem.what}")
    raise first


def _open(
    artifact: Artifact, variant: Variant, options: LoadOptions, verification: Verification | None
) -> Engine:
    # Hashing goes on, on other threads, while the engine is imported on this one.
    open_variant = find_loader(variant).prepare(variant, artifact.path)
    if verification is not None:
        verification.wait()
    return open_variant(artifact, variant, options)


def _log_choice(
    artifact: Artifact, variant: Variant, passed: Sequence[tuple[Variant, LeptonError]]
) -> None:
    if not passed:
        return
    # Only here, and it costs milliseconds.
    import logging

    log = logging.getLogger("leptonc.runtime")
    for other, error in passed:
        log.warning(
            "%s: the variant %r is not used: %s; %r runs on %s instead",
            artifact.path,
            other.name,
            error.what,
            variant.name,
            variant.device,
        )
