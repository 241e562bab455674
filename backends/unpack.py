"""The graphs of a finished artifact with their weights, for comparison and inspection."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from leptonc.backends.abilities import ReadsGraphs
from leptonc.backends.rows import find_row
from leptonc.runtime.artifact.reader import open_artifact
from leptonc.runtime.engines.loaders import DEMANDS


def unpack(path: Path) -> dict[str, ir.Model]:
    """Return the graph of every variant by the variant's name; weights stay in the file.

    What only its engine can read, or is of a backend that is not here, is left out.

    Raises:
        ArtifactError: The file is damaged or not an artifact.
    """
    graphs: dict[str, ir.Model] = {}
    with open_artifact(path, DEMANDS) as artifact:
        for variant in artifact.manifest.variants:
            row = find_row(variant.backend)
            backend = None if row is None else row.load()
            if isinstance(backend, ReadsGraphs):
                graphs[variant.name] = backend.read(artifact, variant)
    return graphs
