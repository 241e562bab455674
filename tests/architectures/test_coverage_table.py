"""The committed page: what it must list, what makes a row worse, and that it reads back."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import write_coverage
from architectures import ARCHITECTURES, TINY_MODELS
from coverage_table import PAGE, better, page, parse, worse
from measure import RECIPES, Row

ASKED_FOR = (
    *("bert", "distilbert", "roberta", "albert", "electra", "deberta_v2", "mpnet", "modernbert"),
    *("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "opt"),
    *("t5", "t5_encoder", "bart", "whisper", "whisper_encoder"),
    *("vit", "deit", "swin", "convnext", "resnet", "mobilenet_v2", "efficientnet", "detr"),
    *("segformer", "clip", "wav2vec2", "mamba"),
)

ROW = Row(
    architecture="bert",
    attention="sdpa",
    exported=120,
    nodes={"generic": 50, "ort-cpu": 40},
    fused={
        "generic": Counter({"layer-norm": 5, "gelu-erf": 2}),
        "ort-cpu": Counter({"layer-norm": 5}),
    },
    sqnr_db=139.0,
)


def test_the_page_has_one_row_for_each_model_in_their_order():
    rows = parse(PAGE.read_text(encoding="utf-8"))
    assert [f"{row.architecture}_{row.attention}" for row in rows] == list(TINY_MODELS)


def test_every_architecture_that_was_asked_for_is_there():
    assert len(ASKED_FOR) >= 32
    assert set(ASKED_FOR) <= {row.name for row in ARCHITECTURES}


def test_names_are_told_apart():
    assert len({row.name for row in ARCHITECTURES}) == len(ARCHITECTURES)


def test_the_page_is_what_its_own_rows_make():
    text = PAGE.read_text(encoding="utf-8")
    assert page(parse(text)) == text


@pytest.mark.parametrize("sqnr", [139.0, math.inf])
def test_a_row_reads_back(sqnr):
    row = replace(ROW, sqnr_db=sqnr)
    assert parse(page([row])) == (row,)


def test_a_row_without_fusions_reads_back():
    row = replace(ROW, fused={"generic": Counter(), "ort-cpu": Counter()})
    assert parse(page([row])) == (row,)


def test_a_row_is_not_worse_than_itself_nor_better():
    assert worse(ROW, ROW) == []
    assert not better(ROW, ROW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"nodes": {"generic": 51, "ort-cpu": 40}},
            "51 nodes for generic instead of 50 (120 exported; the table was made of 120)",
        ),
        (
            {"fused": {"generic": ROW.fused["generic"], "ort-cpu": Counter({"layer-norm": 3})}},
            "layer-norm fired 2 times less for ort-cpu",
        ),
        ({"sqnr_db": 120.0}, "SQNR 120 dB instead of 139"),
    ],
)
def test_a_worse_row_is_told_in_words(change, said):
    assert worse(replace(ROW, **change), ROW) == [said]
    assert not better(replace(ROW, **change), ROW)


def test_fewer_nodes_are_better_and_a_few_decibels_are_no_matter():
    row = replace(ROW, nodes={"generic": 49, "ort-cpu": 40}, sqnr_db=132.0)
    assert worse(row, ROW) == []
    assert better(row, ROW)


def test_rows_that_were_not_measured_or_are_wrong_stay():
    rows = parse(PAGE.read_text(encoding="utf-8"))
    fresh = replace(rows[1], exported=1)
    names = [f"{row.architecture}_{row.attention}" for row in rows[:2]]
    made = write_coverage.table(names, ["it is wrong", fresh], rows)
    assert made == [rows[0], fresh, *rows[2:]]


def test_an_unknown_architecture_is_refused():
    with pytest.raises(SystemExit, match="unknown: cobol; there are .*bert"):
        write_coverage._chosen(["cobol"])


def test_the_same_weights_come_at_every_build():
    first, second = (TINY_MODELS["resnet_none"].build().state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(bool((first[name] == second[name]).all()) for name in first)


@pytest.mark.parametrize("name", ["bert_sdpa", "llama_cache_eager", "detr_eager", "bit_none"])
def test_no_weight_is_constant(name):
    state = TINY_MODELS[name].build().state_dict()
    constant = [
        key
        for key, tensor in state.items()
        if tensor.is_floating_point() and tensor.numel() > 1 and float(tensor.std()) == 0
    ]
    assert constant == []


def test_a_row_compiles_from_the_command_line(tmp_path):
    script = Path(sys.executable).with_name("leptonc")
    command = [script, "compile", f"{RECIPES}:bert_sdpa", "-o", "bert.lepton"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bert.lepton").is_file()
