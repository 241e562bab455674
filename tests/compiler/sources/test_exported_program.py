from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch

from leptonc.compiler.errors import PickleRefusedError, SourceError
from leptonc.compiler.export.onnx_export import export
from leptonc.compiler.sources.opening import open_source


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 4)

    def forward(self, x, scale):
        return {"y": self.linear(x) * scale}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        Net().eval(),
        (torch.ones(2, 8),),
        {"scale": torch.ones(4)},
        dynamic_shapes={"x": {0: batch}, "scale": {}},
    )
    torch.export.save(program, path)
    return path


def rewritten(archive, target, change):
    """Copy the archive; `change(name, data)` returns the new data of a member."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info, change(info.filename, old.read(info.filename)))
    return target


def test_a_program_is_a_source_with_its_bounds(archive):
    source = open_source(str(archive))
    assert list(source.inputs) == ["x", "scale"]
    (dim,) = source.axes["x"].values()
    assert (dim.name, dim.min, dim.max) == ("x_dim_0", 1, 64)
    x = np.full((5, 8), 2.0, np.float32)
    y = source.reference({"x": x, "scale": np.ones(4, np.float32)})["y"]
    expected = Net()(torch.from_numpy(x), torch.ones(4))["y"].detach().numpy()
    assert np.allclose(y, expected)
    assert source.weight_bytes == 36 * 4
    graph = export(source, ["y"]).model.graph
    assert [value.name for value in graph.inputs] == ["x", "scale"]
    assert str(graph.inputs[0].shape[0]) == "x_dim_0"


class Bomb:
    def __reduce__(self):
        return (open, ("/nonexistent/leptonc-was-here", "w"))


def pickled_weights(name, data):
    if not name.endswith("_weights_config.json"):
        return data
    config = json.loads(data)
    for entry in config["config"].values():
        entry["use_pickle"] = True
    return json.dumps(config)


def pickled_samples(name, data):
    return pickle.dumps(Bomb()) if "/sample_inputs/" in name else data


@pytest.mark.parametrize("change", [pickled_weights, pickled_samples])
def test_pickles_inside_are_refused_before_anything_is_loaded(archive, tmp_path, change):
    path = rewritten(archive, tmp_path / "net.pt2", change)
    with pytest.raises(PickleRefusedError) as caught:
        open_source(str(path))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"prose", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "net.pt2"
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(str(path))
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_truncated_archive_is_refused(archive, tmp_path):
    path = tmp_path / "net.pt2"
    data = archive.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="not an exported program"):
        open_source(str(path))
