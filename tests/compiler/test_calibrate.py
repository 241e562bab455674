"""`leptonc calibrate` as a user calls it: exact, resumable, and clear about bad data."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnx.parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interruptible import interruptible
from recipes import MLP, write_recipe

from leptonc.compiler.cli import main
from leptonc.passes.ranges.file import read_checkpoint, read_ranges

MODEL = """
<ir_version: 10, opset_import: ["" : 20]>
net ({batch} x, int64[{rows}] kind) => (float[{rows}, 3] y) {{
  a = Conv<pads=[1,1,1,1]>(x, w)
  b = Relu(a)
  p = GlobalAveragePool(b)
  f = Flatten(p)
  k = Cast<to=1>(kind)
  axis = Constant<value_ints=[1]>()
  c = Unsqueeze(k, axis)
  g = Add(f, c)
  q = Sqrt(g)
  h = MatMul(q, u)
  y = Relu(h)
}}
"""
COUNT = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("calibrate")


def write_model(path, rows="batch"):
    text = MODEL.format(batch=f"float[{rows}, 2, 5, 5]", rows=rows)
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    for name, shape in (("w", (4, 2, 3, 3)), ("u", (4, 3))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return write_model(folder / "net.onnx")


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((COUNT, 2, 5, 5)).astype(np.float32),
        "kind": rng.integers(0, 4, COUNT),
    }


@pytest.fixture(scope="module")
def table(folder, model, arrays):
    np.savez(folder / "data.npz", **arrays)
    return calibrate(model, folder / "data.npz", folder / "whole.json")


def calibrate(model, data, output, *more):
    assert main(["calibrate", str(model), "--data", str(data), "-o", str(output), "-q", *more]) == 0
    return output.read_bytes()


def fails(capfd, code, *arguments):
    assert main(["calibrate", *map(str, arguments)]) == code
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return err


def test_the_table_holds_what_the_engine_computed(folder, table, arrays):
    ranges = read_ranges(folder / "whole.json")
    assert ranges.samples == COUNT
    assert set(ranges.tensors) == {"x", "b", "q"}
    assert ranges.tensors["x"].maximum == arrays["x"].max()
    assert ranges.tensors["x"].counts.sum() == arrays["x"].size
    assert ranges.tensors["b"].counts.sum() == COUNT * 4 * 25
    assert ranges.tensors["q"].channels.shape == (4,)
    assert ranges.tensors["x"].channels.tolist() == np.abs(arrays["x"]).max(axis=(0, 2, 3)).tolist()


@settings(deadline=None, max_examples=6)
@given(st.permutations(range(COUNT)), st.sets(st.integers(1, COUNT - 1), max_size=4))
def test_batches_order_and_sharding_leave_no_trace(folder, model, table, arrays, order, cuts):
    shuffled = {name: array[list(order)] for name, array in arrays.items()}
    batches = folder / "batches"
    batches.mkdir(exist_ok=True)
    for old in batches.iterdir():
        old.unlink()
    edges = [0, *sorted(cuts), COUNT]
    shards = []
    for number, (start, stop) in enumerate(zip(edges, edges[1:])):
        path = batches / f"{number}.npz"
        np.savez(path, **{name: array[start:stop] for name, array in shuffled.items()})
        calibrate(model, path, folder / f"shard{number}.json")
        shards.append(str(folder / f"shard{number}.json"))
    assert calibrate(model, batches, folder / "again.json") == table
    if len(shards) > 1:
        merged = folder / "merged.json"
        assert main(["calibrate", "--merge", *shards, "-o", str(merged), "-q"]) == 0
        assert merged.read_bytes() == table


@pytest.mark.parametrize("form", ["stacked", "fortran", "iterable", "one by one"])
def test_every_form_of_the_data_gives_the_same_table(folder, model, table, arrays, form):
    data = folder / f"{form.replace(' ', '_')}.npz"
    if form == "stacked":
        np.savez(data, x=arrays["x"][:, None], kind=arrays["kind"][:, None])
    elif form == "fortran":
        np.savez_compressed(data, x=np.asfortranarray(arrays["x"]), kind=arrays["kind"])
    else:
        step = 5 if form == "iterable" else 1
        text = (
            "import numpy as np\n"
            f"whole = np.load({str(folder / 'data.npz')!r})\n"
            f"def data():\n    for i in range(0, {COUNT}, {step}):\n"
            f"        yield {{k: whole[k][i:i + {step}] for k in whole.files}}\n"
        )
        data.with_suffix(".py").write_text(text)
        data = f"{data.with_suffix('.py')}:data"
    assert calibrate(model, data, folder / "form.json") == table


def test_a_static_batch_is_one_sample(folder, arrays):
    static = write_model(folder / "static.onnx", rows="3")
    calibrate(static, folder / "data.npz", folder / "static.json")
    ranges = read_ranges(folder / "static.json")
    assert ranges.samples == COUNT // 3
    assert ranges.tensors["x"].counts.sum() == arrays["x"].size


def test_a_first_axis_whose_rows_touch_is_no_batch(folder, capfd):
    text = """<ir_version: 10, opset_import: ["" : 20]>
    net (float[length, 4] x) => (float[length, 4] y) {
      t = Transpose<perm=[1,0]>(x)
      s = MatMul(x, t)
      p = Softmax(s)
      y = MatMul(p, x)
    }"""
    path = folder / "sequence.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    rng = np.random.default_rng(1)
    np.savez(folder / "sequence.npz", x=rng.standard_normal((6, 4)).astype(np.float32))
    calibrate(path, folder / "sequence.npz", folder / "sequence.json")
    ranges = read_ranges(folder / "sequence.json")
    assert ranges.samples == 1
    assert ranges.tensors["p"].counts.sum() == 36


def spoil(arrays, **changes):
    return {**{name: array.copy() for name, array in arrays.items()}, **changes}


def put(array, place, value):
    array = array.copy()
    array[place] = value
    return array


BAD = {
    "nan": (lambda a: spoil(a, x=put(a["x"], (7, 1, 2, 2), np.nan)), "'x' holds NaN", "sample 7"),
    "inf": (lambda a: spoil(a, x=put(a["x"], (4, 0, 0, 0), -np.inf)), "holds an inf", "sample 4"),
    "constant": (
        lambda a: spoil(a, x=np.full_like(a["x"], 0.5)),
        "'x' is constant: 0.5",
        "samples 0 to 11",
    ),
    "dtype": (lambda a: spoil(a, x=a["x"].astype(np.float64)), "'x' has dtype float64", "sample 0"),
    "shape": (lambda a: spoil(a, x=a["x"][:, :1]), "'x' has size 1 in axis 1", "sample 0"),
    "rank": (lambda a: spoil(a, x=a["x"][:, 0]), "'x' has rank 3", "sample 0"),
    "missing": (lambda a: {"x": a["x"]}, "input 'kind' is missing", "sample 0"),
    "unknown": (lambda a: {**a, "xx": a["x"]}, "there is no input 'xx'", "sample 0"),
    "uneven": (lambda a: {"x": a["x"], "kind": a["kind"][:5]}, "'kind' has 5", "sample 0"),
    "empty": (lambda a: {name: array[:0] for name, array in a.items()}, "is empty", "sample 0"),
    "activation": (
        lambda a: spoil(a, kind=put(a["kind"], 9, -100)),
        "activation 'q' holds NaN",
        "sample 9",
    ),
    "none": (lambda a: {}, "holds no arrays", "none.npz"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_data_is_one_error_that_names_tensor_and_sample(tmp_path, model, arrays, capfd, kind):
    make, what, where = BAD[kind]
    np.savez(tmp_path / f"{kind}.npz", **make(arrays))
    output = tmp_path / "r.json"
    err = fails(capfd, 3, model, "--data", tmp_path / f"{kind}.npz", "-o", output)
    assert what in err and where in err
    if kind == "activation":
        assert "Sqrt node" in err
    assert not output.exists()


def test_data_that_is_not_there(tmp_path, model, capfd):
    output = tmp_path / "r.json"
    more = ("-o", output)
    assert "no such file with calibration data" in fails(capfd, 3, model, "--data", "no.npz", *more)
    assert "no data, no INT8" in fails(capfd, 3, model, *more)
    (tmp_path / "hollow").mkdir()
    assert "no .npz files" in fails(capfd, 3, model, "--data", tmp_path / "hollow", *more)
    (tmp_path / "junk.npz").write_bytes(b"PK not a zip")
    assert "not a readable .npz" in fails(capfd, 3, model, "--data", tmp_path / "junk.npz", *more)
    (tmp_path / "d.py").write_text(
        "def none():\n    return iter(())\n"
        "def broken():\n    yield {}['gone']\n"
        "number = 3\n"
        "def numbers():\n    yield 3\n"
        "def lists():\n    yield {'x': [1.0], 'kind': [1]}\n"
    )
    for name, words in {
        "none": "not a single sample",
        "broken": "KeyError: 'gone'",
        "number": "is a int, not an iterable",
        "numbers": "not a mapping",
        "lists": "is a list, not an array",
        "absent": "no attribute 'absent'",
    }.items():
        assert words in fails(capfd, 3, model, "--data", f"{tmp_path / 'd.py'}:{name}", *more)
    assert not output.exists()


def test_a_cut_npz_file(tmp_path, folder, table, model, capfd):
    whole = (folder / "data.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    err = fails(capfd, 3, model, "--data", tmp_path / "cut.npz", "-o", tmp_path / "r.json")
    assert "not a readable .npz" in err


def test_wrong_usage(tmp_path, folder, table, model, capfd):
    data = ("--data", folder / "data.npz")
    err = fails(capfd, 2, model, *data, "-o", tmp_path / "none" / "r.json")
    assert "folder that exists" in err
    assert "overwrite" in fails(capfd, 2, model, *data, "-o", folder / "data.npz")
    assert "one source" in fails(capfd, 2, model, model, *data, "-o", tmp_path / "r.json")
    assert "at least two" in fails(capfd, 2, "--merge", folder / "whole.json", "-o", tmp_path / "r")
    err = fails(capfd, 2, "--merge", folder / "whole.json", folder / "whole.json", *data)
    assert "--data means nothing" in err


def test_tables_that_cannot_be_merged(tmp_path, folder, table, model, arrays, capfd):
    whole = folder / "whole.json"
    err = fails(capfd, 3, "--merge", whole, whole, "-o", tmp_path / "m.json")
    assert "same 12 samples" in err
    static = write_model(tmp_path / "static.onnx", rows="3")
    calibrate(static, folder / "data.npz", tmp_path / "static.json")
    err = fails(capfd, 3, "--merge", whole, tmp_path / "static.json", "-o", tmp_path / "m.json")
    assert "another graph" in err and "static.json" in err and "inputs: x FLOAT" in err
    (tmp_path / "cut.json").write_bytes(table[:-100])
    err = fails(capfd, 3, "--merge", whole, tmp_path / "cut.json", "-o", tmp_path / "m.json")
    assert "not a calibration table" in err and "cut.json" in err
    assert not (tmp_path / "m.json").exists()


def test_a_limit_takes_the_first_samples(tmp_path, folder, table, model, arrays, capfd):
    np.savez(tmp_path / "first.npz", **{name: array[:5] for name, array in arrays.items()})
    expected = calibrate(model, tmp_path / "first.npz", tmp_path / "first.json")
    found = calibrate(model, folder / "data.npz", tmp_path / "some.json", "--samples", "5")
    assert found == expected


def test_what_is_printed(tmp_path, folder, table, model, capfd):
    data = ("--data", str(folder / "data.npz"), "-o", str(tmp_path / "r.json"))
    assert main(["calibrate", str(model), *data, "--json"]) == 0
    out, err = capfd.readouterr()
    answer = json.loads(out)
    assert err == ""
    assert (answer["samples"], answer["tensors"], answer["constant"]) == (COUNT, 3, [])
    assert main(["calibrate", str(model), *data]) == 0
    out, err = capfd.readouterr()
    assert "run the model over the data" in err and "12 samples, 3 tensors" in out


def test_a_failed_run_goes_on_where_the_data_was_repaired(
    tmp_path, folder, table, model, arrays, capfd
):
    data, output = tmp_path / "data.npz", tmp_path / "r.json"
    np.savez(data, **spoil(arrays, kind=put(arrays["kind"], 9, -100)))
    err = fails(capfd, 3, model, "--data", data, "-o", output)
    assert "the first 9 samples are kept" in err
    assert "unfinished calibration" in fails(capfd, 2, model, "--data", data, "-o", output)
    np.savez(data, **arrays)
    assert calibrate(model, data, output, "--resume") == table
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_checkpoint_of_other_data_or_another_model_is_refused(
    tmp_path, folder, table, model, arrays, capfd
):
    data, output = tmp_path / "data.npz", tmp_path / "r.json"
    np.savez(data, **spoil(arrays, kind=put(arrays["kind"], 9, -100)))
    fails(capfd, 3, model, "--data", data, "-o", output)
    kept = (tmp_path / "r.json.partial").read_bytes()
    for changed in (arrays["x"][::-1], put(arrays["x"], (0, 0, 0, 0), 9.0)):
        np.savez(data, x=changed, kind=arrays["kind"])
        err = fails(capfd, 3, model, "--data", data, "-o", output, "--resume")
        assert "the first 9 samples are not those" in err
    np.savez(data, **{name: array[:4] for name, array in arrays.items()})
    err = fails(capfd, 3, model, "--data", data, "-o", output, "--resume")
    assert "9 samples" in err and "ends after 4" in err
    np.savez(data, **arrays)
    static = write_model(tmp_path / "static.onnx", rows="3")
    err = fails(capfd, 3, static, "--data", data, "-o", output, "--resume")
    assert "another graph" in err
    assert (tmp_path / "r.json.partial").read_bytes() == kept
    (tmp_path / "r.json.partial").write_bytes(kept[:-40])
    assert "not a calibration table" in fails(
        capfd, 3, model, "--data", data, "-o", output, "--resume"
    )


SLOW = """
import pathlib, time
import numpy as np
whole = np.load({data!r})
def data():
    for i in range({count}):
        yield {{k: whole[k][i:i + 1] for k in whole.files}}
        if i == 5 and not pathlib.Path({go!r}).exists():
            # Everything before this sample is counted when the caller sees the mark.
            pathlib.Path({mark!r}).touch()
            time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_stopped_run_resumes_to_the_same_table(tmp_path, folder, table, model, number, code):
    names = {"data": str(folder / "data.npz"), "mark": str(tmp_path / "mark")}
    text = SLOW.format(**names, go=str(tmp_path / "go"), count=COUNT)
    (tmp_path / "slow.py").write_text(text)
    output = tmp_path / "r.json"
    command = [sys.executable, "-m", "leptonc.compiler.cli", "calibrate", str(model), "-q"]
    command += ["--data", f"{tmp_path / 'slow.py'}:data", "-o", str(output), "--checkpoint", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible)
    try:
        while not (tmp_path / "mark").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code
    kept, _ = read_checkpoint(tmp_path / "r.json.partial")
    assert not output.exists()
    if number != signal.SIGKILL:
        assert kept.samples == 6
        assert "the first 6 samples are kept" in err and "Traceback" not in err
    assert 1 <= kept.samples <= 6
    (tmp_path / "go").touch()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert output.read_bytes() == table
    assert not (tmp_path / "r.json.partial").exists()


def test_progress_on_a_terminal(tmp_path, folder, table, model):
    command = [sys.executable, "-m", "leptonc.compiler.cli", "calibrate", str(model)]
    command += ["--data", str(folder / "data.npz"), "-o", str(tmp_path / "r.json")]
    terminal, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
    with subprocess.Popen(command, stderr=side, stdout=side, env=environment) as process:
        os.close(side)
        seen = b""
        while select.select([terminal], [], [], 60)[0]:
            try:
                seen += os.read(terminal, 1 << 16)
            except OSError:
                break
    os.close(terminal)
    text = seen.decode()
    assert process.returncode == 0
    assert re.search(r"\d+ samples · [\d.]+/s · ETA 0:00:\d\d · [\d,]+ MiB", text)
    assert (tmp_path / "r.json").read_bytes() == table


def test_a_recipe_brings_its_own_data(tmp_path, capfd):
    text = MLP + (
        "\ndef calibration_data():\n"
        "    generator = torch.Generator().manual_seed(1)\n"
        "    return [{'x': torch.randn(4, 16, generator=generator)} for _ in range(3)]\n"
    )
    recipe = write_recipe(tmp_path, text)
    assert main(["calibrate", str(recipe), "-q", "-o", str(tmp_path / "a.json")]) == 0
    assert main(["calibrate", str(recipe), "-q", "-o", str(tmp_path / "b.json")]) == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    ranges = read_ranges(tmp_path / "a.json")
    assert ranges.samples == 12 and "x" in ranges.tensors
    assert capfd.readouterr() == ("", "")
