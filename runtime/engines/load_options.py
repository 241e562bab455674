"""What a load asks of an engine."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class LoadOptions:
    """The options of `load` that concern an engine; see there."""

    threads: int | None
    spinning: bool
    eager: bool
    cuda_graphs: bool
    runtime_cache: str | os.PathLike[str] | bool
