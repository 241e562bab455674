"""An engine of another distribution: y = x @ w in NumPy, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_artifacts import BATCH, LINEAR, linear_weights, manifest, parse, spec, write

from leptonc.backends import find_backend, parse_target
from leptonc.backends.pack import pack

ENGINE = """
from dataclasses import dataclass, replace

import numpy as np

from leptonc.runtime import ArtifactError, EngineMissingError, UnsupportedError
from leptonc.runtime.engines.base import Reason, Verdict
from leptonc.runtime.engines.row import EngineRow

EVENTS = []


class Acme:
    def __init__(self, artifact, variant, options):
        EVENTS.append("opened")
        (weight,) = variant.weights
        view = artifact.view(weight.section, weight.offset, weight.length)
        self.weight = np.frombuffer(view, weight.dtype).reshape(weight.shape)
        self.name, self.threads = variant.name, options.threads

    def run(self, inputs):
        return {"y": inputs["x"] @ self.weight}

    def start(self, inputs):
        raise UnsupportedError(f"{self.name!r} starts nothing", fix="call run()")

    def bind(self, inputs, outputs):
        return outputs

    def run_bound(self, binding, inputs):
        binding["y"][...] = self.run(inputs)["y"]

    def on_gpu(self):
        raise UnsupportedError(f"{self.name!r} has no GPU", fix="bind NumPy arrays")

    def finish(self):
        EVENTS.append("finished")

    def close(self):
        EVENTS.append("closed")


@dataclass(frozen=True)
class AcmeLoader:
    def prepare(self, variant, where):
        EVENTS.append("prepared")
        if variant.demands.own.get("cores", 1) > 64:
            raise ArtifactError("no chip has so many cores", where=where)
        return Acme

    def look(self, host):
        return replace(host, engines={**host.engines, "acme": (2, 0)})

    def judge(self, artifact, variant, host):
        if "acme" not in host.engines:
            return Verdict(not_known=("version of acme",))
        if host.engines["acme"] < variant.demands.engine_min:
            return Verdict((Reason("acme is too old", "update acme"),))
        return Verdict()


ROW = EngineRow("acme", "cpu", "acme", AcmeLoader)
"""


def acme_artifact(path: Path, *, device: str = "cpu", **demands: Any) -> Path:
    """Write an artifact with a variant for acme and one for ONNX Runtime, of the same weight.

    Args:
        path: Where.
        device: Of acme's variant.
        demands: Of acme's variant, beside those of a graph.
    """
    target = parse_target("ort-cpu")
    payload = find_backend(target).build(parse(LINEAR, linear_weights()), target, path.parent)
    sections, [ours] = pack([payload])
    acme = {"engine": "acme", "engine_min": "1.5", "opset": 0, "instructions": [], **demands}
    theirs = {**ours, "name": "acme", "backend": "acme", "device": device, "demands": acme}
    signature = [spec("x", "float32", BATCH, 32)], [spec("y", "float32", BATCH, 16)]
    write(path, sections, manifest(*signature, variants=[theirs, ours]))
    return path
