from __future__ import annotations

import numpy as np
import pytest

from leptonc.runtime.arrays import load_arrays, load_named_arrays, save_arrays
from leptonc.runtime.errors import EnvironmentProblem, InputError


def test_any_name_and_rank_survives(tmp_path):
    arrays = {
        "file": np.arange(3),
        "a/b": np.float32(2).reshape(()),
        "text": np.array(["x", "yz"]),
        "empty": np.zeros((0, 4), np.float16),
        "big_endian": np.arange(3, dtype=">i4"),
    }
    save_arrays(tmp_path / "x.npz", arrays)
    loaded = load_arrays(tmp_path / "x.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        assert loaded[name].shape == array.shape
        assert np.array_equal(loaded[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not a readable .npz file"),
        (b"PK\x03\x04 cut off", "not a readable .npz file"),
    ],
)
def test_an_unreadable_file_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_arrays(path)


def test_pickled_objects_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", evil=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="not a readable .npz file"):
        load_arrays(tmp_path / "x.npz")


def test_a_missing_folder_leaves_nothing(tmp_path):
    with pytest.raises(EnvironmentProblem, match="cannot be written"):
        save_arrays(tmp_path / "none" / "x.npz", {"a": np.zeros(1)})


def test_text_is_written_without_pickling(tmp_path):
    save_arrays(tmp_path / "x.npz", {"words": np.array(["a", "bc"], dtype=object)})
    assert load_arrays(tmp_path / "x.npz")["words"].tolist() == ["a", "bc"]


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], []])
def test_arrays_for_a_model_must_be_exactly_its_inputs(tmp_path, names):
    save_arrays(tmp_path / "x.npz", {"b": np.zeros(1), "a": np.zeros(1)})
    assert list(load_named_arrays(tmp_path / "x.npz", ["a", "b"])) == ["a", "b"]
    with pytest.raises(InputError, match="the file holds b, a, but the model takes"):
        load_named_arrays(tmp_path / "x.npz", names)


def test_a_file_without_arrays_is_for_models_without_inputs(tmp_path):
    save_arrays(tmp_path / "x.npz", {})
    with pytest.raises(InputError, match="holds no arrays"):
        load_arrays(tmp_path / "x.npz")
    assert load_arrays(tmp_path / "x.npz", may_be_empty=True) == {}
