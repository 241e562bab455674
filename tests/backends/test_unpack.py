from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from acme_engine import acme_artifact
from small_artifacts import linear_weights

from leptonc.backends.unpack import unpack


def test_graphs_come_back_with_their_weights_in_the_file(tmp_path: Path) -> None:
    # It holds a variant of a backend that is not here as well.
    graphs = unpack(acme_artifact(tmp_path / "m.lepton"))
    assert list(graphs) == ["ort-cpu"]
    large = graphs["ort-cpu"].graph.initializers["w"].const_value
    assert isinstance(large, ir.ExternalTensor)
    np.testing.assert_array_equal(large.numpy(), linear_weights()["w"])
