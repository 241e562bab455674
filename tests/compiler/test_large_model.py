"""A model of more than 2 GB, which no single protobuf can hold, through the whole way."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

LAYERS = 10
WIDTH = 8192
WEIGHT_BYTES = LAYERS * WIDTH * WIDTH * 4


def write_model(folder):
    """Write random weights row block by row block, and a graph that multiplies by all of them."""
    generator = np.random.default_rng(0)
    block = generator.standard_normal((64, WIDTH), dtype=np.float32) / WIDTH**0.5
    lines = []
    with (folder / "large.data").open("wb") as stream:
        for layer in range(LAYERS):
            for row in range(0, WIDTH, 64):
                stream.write(np.roll(block, layer * 131 + row).tobytes())
            lines.append(f"h{layer + 1} = MatMul (h{layer}, w{layer})")
    text = (
        '<ir_version: 9, opset_import: ["" : 20]>\n'
        f"large (float[batch, {WIDTH}] h0) => (float[batch, {WIDTH}] h{LAYERS}) {{"
        + "\n".join(lines)
        + "}"
    )
    model = ir.from_onnx_text(text)
    size = WIDTH * WIDTH * 4
    for layer, node in enumerate(model.graph):
        value = node.inputs[1]
        value.shape = ir.Shape([WIDTH, WIDTH])
        value.dtype = ir.DataType.FLOAT
        value.const_value = ir.ExternalTensor(
            "large.data", layer * size, size, ir.DataType.FLOAT,
            shape=value.shape, name=value.name, base_dir=folder,
        )  # fmt: skip
        model.graph.initializers[value.name] = value
    ir.save(model, folder / "large.onnx")


def leptonc(*arguments, cwd):
    """Run a command; return its output and the most memory that it had of its own.

    Pages of mapped files do not count: they belong to the page cache.
    """
    command = [sys.executable, "-m", "leptonc.compiler.cli", *arguments]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        select.select([process.stdout], [], [], 0.02)
        if process.stdout in select.select([process.stdout], [], [], 0)[0]:
            break
    out, _ = process.communicate()
    assert process.returncode == 0, arguments
    return out, peak


def anonymous_bytes(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line.split() for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0][1]) * 1024 if lines else 0


@pytest.mark.slow
def test_it_compiles_is_inspected_and_runs_without_a_copy_of_its_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_model(tmp_path)
    arguments = ("compile", "large.onnx", "-o", "large.lepton", "--no-verify", "--json")
    out, compiling = leptonc(*arguments, cwd=tmp_path)
    assert json.loads(out)["bytes"] > WEIGHT_BYTES > 2 << 30
    _, inspecting = leptonc("inspect", "large.lepton", "--json", cwd=tmp_path)
    x = np.ones((1, WIDTH), np.float32)
    np.savez(tmp_path / "x.npz", h0=x)
    _, running = leptonc("run", "large.lepton", "x.npz", "-o", "y.npz", cwd=tmp_path)
    assert 0 < max(compiling, inspecting, running) < WEIGHT_BYTES / 2
    shape = (LAYERS, WIDTH, WIDTH)
    for weight in np.memmap(tmp_path / "large.data", np.float32, "r", shape=shape):
        x = x @ weight
    assert np.allclose(np.load(tmp_path / "y.npz")[f"h{LAYERS}"], x, rtol=1e-3, atol=1e-4)
