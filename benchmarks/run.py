"""Run every benchmark, one after the other: what `make bench` calls.

Its arguments are handed to each of them: `--only RECIPE...`, `--rounds N`, `--results FOLDER`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("latency", "cold_load", "compile_time", "optimizers")


def main() -> int:
    """Return 0 when every benchmark ran to its end."""
    folder = Path(__file__).resolve().parent
    return max(
        subprocess.run(
            [sys.executable, str(folder / f"{name}.py"), *sys.argv[1:]], check=False
        ).returncode
        for name in BENCHMARKS
    )


if __name__ == "__main__":
    sys.exit(main())
