"""The state of an accuracy search, kept beside the output so that it can go on where it was.

It is bound to all that can change a measurement: the graph and its weights, the data, the plan,
the goals and the versions of the tools. Under another binding it says nothing and is replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leptonc.compiler.accuracy.search import Evaluation, LayerCost
from leptonc.compiler.errors import CalibrationError

_FORMAT = "leptonc accuracy search 1"


@dataclass
class SearchState:
    """What a search has measured so far.

    Attributes:
        path: The file.
        binding: What the measurements belong to, as a digest.
        costs: Of every layer, once they are measured.
        evaluations: In the order they were made.
    """

    path: Path
    binding: str
    costs: tuple[LayerCost, ...] = ()
    evaluations: list[Evaluation] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path, binding: str) -> SearchState:
        """Read the state in `path` if there is one of the same binding, else begin a new one.

        Raises:
            CalibrationError: The file is there and is not the state of a search.
        """
        if not path.exists():
            return cls(path, binding)
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != _FORMAT:
                raise ValueError("it is of another format")
            if found["binding"] != binding:
                return cls(path, binding)
            costs = tuple(
                LayerCost(str(entry["layer"]), float(entry["noise"]), float(entry["saved"]))
                for entry in found["costs"]
            )
            evaluations = [_evaluation(entry) for entry in found["evaluations"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CalibrationError(
                f"this is not the state of an accuracy search: {error}",
                where=str(path),
                fix="delete the file; the search then starts from its beginning",
            ) from error
        return cls(path, binding, costs, evaluations)

    def find(self, floats: frozenset[str]) -> Evaluation | None:
        """Return what was measured with these layers in float."""
        return next((each for each in self.evaluations if each.floats == floats), None)

    def keep_costs(self, costs: Sequence[LayerCost]) -> None:
        """Keep the costs of the layers."""
        self.costs = tuple(costs)
        self._write()

    def keep(self, evaluation: Evaluation) -> None:
        """Keep an evaluation."""
        self.evaluations.append(evaluation)
        self._write()

    def remove(self) -> None:
        """Delete the file: the search is at its end."""
        self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        content = {
            "format": _FORMAT,
            "binding": self.binding,
            "costs": [asdict(cost) for cost in self.costs],
            "evaluations": [
                {
                    "floats": sorted(each.floats),
                    "rooms": dict(each.rooms),
                    "figures": dict(each.figures),
                }
                for each in self.evaluations
            ],
        }
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            with partial.open("w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)


def _evaluation(entry: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        frozenset(str(name) for name in entry["floats"]),
        {str(goal): float(room) for goal, room in entry["rooms"].items()},
        {str(goal): float(value) for goal, value in entry["figures"].items()},
    )
