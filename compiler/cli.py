"""The `leptonc` command: turns errors into one clear message and a documented exit code.

This module imports nothing outside the standard library and our own runtime, so that the
command can still say what to install when the extras are missing.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from importlib.util import find_spec
from types import FrameType

from leptonc.runtime.errors import EnvironmentProblem, LeptonError

BUG = 1
USAGE = 2
ENVIRONMENT = 5
INTERRUPTED = 130
TERMINATED = 143
_MACHINE_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What follows `leptonc`; the process's own by default.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_standard_streams()
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"leptonc: {' and '.join(missing)} is not installed; the command line needs the "
            "extra `compile`\n  fix:   pip install 'leptonc[compile]'\n"
            "  note:  loading an artifact needs no extra but the engine: "
            "from leptonc.runtime import load\n"
        )
        return ENVIRONMENT
    signal.signal(signal.SIGTERM, _terminate)
    return _run(arguments)


def _open_standard_streams() -> None:
    """Give a process that was started without standard streams some that lead nowhere.

    The next file to be opened would take their descriptors, and receive what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.dup(1), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.dup(2), "w")


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise _TerminatedError


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM: unwinds like Ctrl-C, so that nothing is left behind."""


def _run(arguments: list[str]) -> int:
    import click

    from leptonc.compiler.commands.group import leptonc

    try:
        # A command that ends with `Exit` has its code returned here, and not raised.
        ended = leptonc.main(arguments, prog_name="leptonc", standalone_mode=False)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.UsageError as error:
        error.show()
        _answer(arguments, "UsageError", error.format_message(), USAGE)
        return USAGE
    except (click.Abort, KeyboardInterrupt) as stop:
        # click turns whatever interrupted a command into an Abort.
        terminated = isinstance(stop.__cause__ or stop, _TerminatedError)
        code = TERMINATED if terminated else INTERRUPTED
        # A command that keeps what it has done says so in the interrupt itself.
        told = str(stop.__cause__ or stop) or "interrupted: nothing was written"
        _report(arguments, told, code)
        return code
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else BUG
    except LeptonError as error:
        return _fail(arguments, error)
    except BrokenPipeError:
        # The reader of our output went away (`leptonc inspect ... | head`): not our failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        return _fail(arguments, EnvironmentProblem("out of memory"), error)
    except OSError as error:
        if error.errno in _MACHINE_ERRNOS:
            return _fail(arguments, _from_os_error(error), error)
        return _bug(arguments, error)
    except Exception as error:  # noqa: BLE001 - the last resort, which names itself a bug
        return _bug(arguments, error)
    return ended if isinstance(ended, int) else 0


def _from_os_error(error: OSError) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"the system refused: {error.strerror}",
        where=str(error.filename) if error.filename else None,
        fix="free some room, or choose folders that can be written (TMPDIR for scratch files)",
    )


def _fail(arguments: list[str], error: LeptonError, cause: BaseException | None = None) -> int:
    if "--debug" in arguments:
        traceback.print_exception(cause or error)
    _report(arguments, str(error), error.exit_code, error)
    return error.exit_code


def _bug(arguments: list[str], error: BaseException) -> int:
    if "--debug" in arguments:
        traceback.print_exception(error)
    message = f"this is a bug in leptonc: {type(error).__name__}: {error}"
    hint = "" if "--debug" in arguments else "\n  fix:   run it again with --debug and report it"
    _report(arguments, message + hint, BUG)
    return BUG


def _report(
    arguments: list[str], message: str, exit_code: int, error: LeptonError | None = None
) -> None:
    """Print the message on standard error and, for machines, one object on standard output."""
    sys.stderr.write(f"leptonc: {message}\n")
    if error is not None:
        _answer(
            arguments,
            type(error).__name__,
            error.what,
            exit_code,
            where=error.where,
            fix=error.fix,
        )
    else:
        _answer(arguments, "Interrupted" if exit_code > 128 else "Bug", message, exit_code)


def _answer(
    arguments: list[str],
    kind: str,
    what: str,
    exit_code: int,
    *,
    where: str | None = None,
    fix: str | None = None,
) -> None:
    """Print the one object that `--json` promises, when it was asked for."""
    if "--json" not in arguments:
        return
    error = {"type": kind, "what": what, "where": where, "fix": fix, "exit_code": exit_code}
    try:
        sys.stdout.write(json.dumps({"error": error}) + "\n")
        sys.stdout.flush()
    except OSError:
        # Standard output itself is what failed; standard error has the message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
