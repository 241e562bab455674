"""Write docs/coverage.md: `make coverage`, or `python tests/architectures/write_coverage.py`.

With names of architectures as arguments only their rows are measured, and the others stay.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from architectures import TINY_MODELS
from coverage_table import PAGE, page, parse
from measure import TARGETS, Row, Subject, row_of

from leptonc.runtime.errors import LeptonError

WORKERS = 2


def measure(name: str) -> Row | str:
    """Measure one tiny model; return its row, or what is wrong with it."""
    print(name, file=sys.stderr)
    try:
        subject = Subject.of(TINY_MODELS[name])
        results = {target: subject.rewritten(target) for target in TARGETS}
        for target, result in results.items():
            wrong = [error for error in result.errors if error.problem is not None]
            if wrong:
                return f"{name}, for {target}: output {wrong[0].output}: {wrong[0].problem}"
    except LeptonError as error:
        return f"{name}: {error}"
    return row_of(subject, results)


def table(names: Sequence[str], results: Sequence[Row | str], old: Sequence[Row]) -> list[Row]:
    """Return the rows of the new page: a model that was not measured, or is wrong, keeps its own."""
    rows = {f"{row.architecture}_{row.attention}": row for row in old}
    measured = zip(names, results, strict=True)
    rows |= {name: result for name, result in measured if isinstance(result, Row)}
    return [rows[name] for name in TINY_MODELS if name in rows]


def _quiet() -> None:
    import torch

    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)


def _chosen(architectures: Collection[str]) -> list[str]:
    known = {tiny.architecture.name for tiny in TINY_MODELS.values()}
    unknown = sorted(set(architectures) - known)
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [
        name
        for name, tiny in TINY_MODELS.items()
        if not architectures or tiny.architecture.name in architectures
    ]


def main() -> int:
    """Measure and write; return 1 when a model is wrong."""
    names = _chosen(sys.argv[1:])
    # Started anew, not forked: torch has threads by now.
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), _quiet) as pool:
        results = list(pool.map(measure, names))
    old = parse(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else ()
    PAGE.write_text(page(table(names, results, old)), encoding="utf-8")
    wrong = [result for result in results if isinstance(result, str)]
    print("\n".join([f"wrote {PAGE}", *wrong]), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
