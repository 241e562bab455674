"""Builds TensorRT plans of every recipe in every precision, and writes docs/tensorrt-builds.md.

`python benchmarks/tensorrt_builds.py [--models digits_cnn minilm] [--precisions fp32 fp16]`. What
was measured is kept in benchmarks/results/tensorrt_builds.json, so that a run on some models
leaves the rows of the others. Each compile is a command of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "tensorrt_builds.json"
PAGE = ROOT / "docs" / "tensorrt-builds.md"
MODELS = (
    "digits_cnn",
    "minilm",
    "mobilenet_v2",
    "resnet50",
    "vit_base",
    "bert_base",
    "t5_encoder",
    "t5_decoder",
    "gpt2",
    "gpt2_decode",
)
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
CAPABILITIES = "86,89,120"
PATIENCE_S = 900

Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what was asked for, and write the results and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    chosen = parser.parse_args(arguments)
    rows = _saved()
    for model in chosen.models:
        for precision in chosen.precisions:
            rows[f"{model} {precision}"] = build(model, precision)
            print(model, precision, json.dumps(rows[f"{model} {precision}"]), flush=True)
            RESULTS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            PAGE.write_text(page(rows), encoding="utf-8")
    return 0


def _saved() -> dict[str, Row]:
    if not RESULTS.exists():
        return {}
    rows: dict[str, Row] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return rows


def build(model: str, precision: str) -> Row:
    """Compile one recipe in one precision; what went wrong is a result like any other."""
    with tempfile.TemporaryDirectory(prefix="tensorrt-builds-") as folder:
        command = [
            *(str(Path(sys.executable).with_name("leptonc")), "compile"),
            *(str(ROOT / "models" / f"{model}.py"), "-t", "tensorrt", "--flavour", "rtx"),
            *("-p", precision, "--sm", CAPABILITIES, "--json"),
            *("-o", str(Path(folder) / "model.lepton")),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            late = f"the compile did not end within {PATIENCE_S} s on this machine"
            return {"refused": late, "where": None, "exit": None}
    answer = json.loads(done.stdout)
    if "error" in answer:
        error = answer["error"]
        if error["type"] == "Bug":
            raise SystemExit(f"{model} {precision}: {error['what']}")
        return {"refused": error["what"], "where": error["where"], "exit": error["exit_code"]}
    (figures,) = answer["builds"].values()
    errors = [
        output["sqnr_db"]
        for trial in answer["verification"]["trials"]
        for output in trial["outputs"]
        if output["sqnr_db"] is not None
    ]
    demands = answer["variants"][0]["demands"]
    return {
        **{name: figures[name] for name in ("seconds", "plan_bytes", "peak_bytes", "layers")},
        "sqnr_db": round(min(errors), 1) if errors else None,
        "version": f"{demands['engine']} {demands['version']}",
        "profile": _widest(demands["profiles"][0]),
    }


def _widest(profile: Mapping[str, Mapping[str, list[int]]]) -> str:
    return ", ".join(
        f"{name} {'x'.join(map(str, shapes['max']))}" for name, shapes in profile.items()
    )


_HEAD = """# TensorRT plans that were built without a GPU

Written by `python benchmarks/tensorrt_builds.py`; do not edit. Each row is one
`leptonc compile models/NAME.py -t tensorrt -p PRECISION --sm 86,89,120`, for the bounds of the
recipe's dimensions: one plan with code for compute capabilities 8.6, 8.9 and 12.0. Seconds and
peak memory are those of the process that builds, on one core of a CPU without a GPU; other work ran
on the machine, so take the seconds as a rough figure. SQNR is the lowest of all outputs and shapes,
of the graph that the builder was given, run on ONNX Runtime's CPU, against the PyTorch module.
int8 is static, with ranges from the recipe's own data; int4 holds the weights of products in 4 bits,
and nothing else: convolutions, embedding tables and activations are in float32.
**No plan here has run**: that needs a GPU (`leptonc verify`, `make gpu-check`).

| model | precision | build s | plan MB | peak MB | layers | SQNR dB |
|---|---|---|---|---|---|---|
"""


def page(rows: Mapping[str, Row]) -> str:
    """Return the page: a row for each build, and the reason for each refusal."""
    lines, refused = [], []
    for model in MODELS:
        for precision in PRECISIONS:
            row = rows.get(f"{model} {precision}")
            if row is None:
                lines.append(f"| {model} | {precision} | not tried | | | | |")
            elif "refused" in row:
                lines.append(f"| {model} | {precision} | refused | | | | |")
                place = f" ({row['where']})" if row["where"] else ""
                refused.append(f"- {model}, {precision}: {row['refused']}{place}.")
            else:
                sqnr = "equal" if row["sqnr_db"] is None else f"{row['sqnr_db']:.1f}"
                lines.append(
                    f"| {model} | {precision} | {row['seconds']:.1f} "
                    f"| {row['plan_bytes'] / 1e6:.1f} | {row['peak_bytes'] / 1e6:.0f} "
                    f"| {row['layers']} | {sqnr} |"
                )
    reasons = "\n## Refused\n\n" + ("\n".join(refused) or "Nothing.") + "\n"
    return _HEAD + "\n".join(lines) + "\n" + reasons


if __name__ == "__main__":
    sys.exit(main())
