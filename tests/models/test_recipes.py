"""What every recipe promises: the same weights each time, dynamic axes, named outputs."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "models"

# Every file that is a recipe: a new one needs no line here.
RECIPES = tuple(
    path.stem
    for path in sorted(FOLDER.glob("*.py"))
    if {"build", "example_inputs"} <= set(re.findall(r"^def (\w+)", path.read_text(), re.M))
)
# Output shapes by name, as functions of batch and sequence.
OUTPUTS = {
    "minilm": {"sentence_embedding": lambda batch, sequence: (batch, 384)},
    "digits_cnn": {"logits": lambda batch, sequence: (batch, 10)},
    "resnet50": {"logits": lambda batch, sequence: (batch, 1000)},
    "mobilenet_v2": {"logits": lambda batch, sequence: (batch, 1000)},
    "vit_base": {"logits": lambda batch, sequence: (batch, 1000)},
    "bert_base": {
        "last_hidden_state": lambda batch, sequence: (batch, sequence, 768),
        "pooler_output": lambda batch, sequence: (batch, 768),
    },
    "t5_encoder": {"last_hidden_state": lambda batch, sequence: (batch, sequence, 512)},
    "gpt2": {"logits": lambda batch, sequence: (batch, 50257)},
    "tiny_gpt": {"logits": lambda batch, sequence: (batch, sequence, 256)},
}
PARAMETERS = {
    "minilm": 22.6e6,
    "digits_cnn": 28.8e3,
    "resnet50": 25.6e6,
    "mobilenet_v2": 3.5e6,
    "vit_base": 86.6e6,
    "bert_base": 109.5e6,
    "t5_encoder": 35.3e6,
    "gpt2": 124.4e6,
    "tiny_gpt": 1.36e6,
}


@pytest.fixture(scope="module", params=RECIPES)
def built(request, recipe):
    """One recipe and one build of it, shared by the tests of this file."""
    loaded = recipe(request.param)
    return request.param, loaded, loaded.build()


def digest(module: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def resized(inputs, axes, sizes):
    for name, tensor in inputs.items():
        for axis, (dim, _, _) in axes[name].items():
            index = torch.arange(sizes[dim]) % tensor.shape[axis]
            tensor = tensor.index_select(axis, index)
        yield name, tensor


def test_weights_are_the_same_bits_at_the_next_build(built):
    _, loaded, module = built
    assert digest(loaded.build()) == digest(module)


@pytest.mark.parametrize("name", PARAMETERS)
def test_size_is_that_of_the_architecture(name, recipe):
    count = sum(parameter.numel() for parameter in recipe(name).build().parameters())
    assert count == pytest.approx(PARAMETERS[name], rel=0.01)


def test_module_is_in_eval_mode(built):
    assert not any(part.training for part in built[2].modules())


def test_no_parameter_is_constant(built):
    constant = [
        name
        for name, parameter in built[2].named_parameters()
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all())
    ]
    assert constant == []


def test_bounds_contain_the_example_and_agree(built):
    _, loaded, _ = built
    inputs, axes = loaded.example_inputs(), loaded.dynamic_shapes()
    assert set(axes) == set(inputs)
    seen: dict[str, tuple[tuple[str, int, int], int]] = {}
    for name, per_axis in axes.items():
        for axis, (dim, low, high) in per_axis.items():
            size = inputs[name].shape[axis]
            assert low <= size <= high
            assert seen.setdefault(dim, ((dim, low, high), size)) == ((dim, low, high), size)
    assert "batch" in seen


@pytest.mark.parametrize("name", RECIPES)
def test_calibration_data_is_within_the_bounds(name, recipe):
    loaded = recipe(name)
    example = {key: np.asarray(value) for key, value in loaded.example_inputs().items()}
    axes = loaded.dynamic_shapes()
    batches = [
        {key: np.asarray(value) for key, value in batch.items()}
        for batch in islice(loaded.calibration_data(), 8)
    ]
    assert sum(len(next(iter(batch.values()))) for batch in batches) >= 8
    for batch in batches:
        assert {key: array.dtype for key, array in batch.items()} == {
            key: array.dtype for key, array in example.items()
        }
        for key, array in batch.items():
            for axis, (_, low, high) in axes[key].items():
                assert low <= array.shape[axis] <= high
    first = [batch[next(iter(example))].tobytes() for batch in [example, *batches]]
    assert len(set(first)) == len(first)


@pytest.fixture(scope="module", params=OUTPUTS)
def shaped(request, recipe):
    """A recipe whose output shapes are known, and one build of it."""
    loaded = recipe(request.param)
    return request.param, loaded, loaded.build()


@pytest.mark.parametrize("sizes", [{"batch": 1, "sequence": 1}, {"batch": 3, "sequence": 21}])
def test_forward_answers_at_other_shapes(shaped, sizes):
    name, loaded, module = shaped
    inputs = dict(resized(loaded.example_inputs(), loaded.dynamic_shapes(), sizes))
    with torch.no_grad():
        outputs = module(**inputs)
    expected = {
        key: shape(sizes["batch"], sizes["sequence"]) for key, shape in OUTPUTS[name].items()
    }
    assert {key: tuple(tensor.shape) for key, tensor in outputs.items()} == expected
    for tensor in outputs.values():
        assert tensor.dtype == torch.float32
        # Neither vanished nor exploded, and every column differs from the others.
        assert 0.03 < float(tensor.std()) < 10


def test_rows_of_a_batch_do_not_mix(shaped):
    _, loaded, module = shaped
    inputs = loaded.example_inputs()
    with torch.no_grad():
        both = module(**inputs)
        first = module(**{name: tensor[:1] for name, tensor in inputs.items()})
    for name in both:
        torch.testing.assert_close(both[name][:1], first[name], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(both[name][:1], both[name][1:], atol=1e-2)


@pytest.mark.parametrize("name", ["minilm", "t5_encoder"])
def test_what_stands_in_the_padding_changes_nothing(name, recipe):
    loaded = recipe(name)
    module, inputs = loaded.build(), loaded.example_inputs()
    padding = inputs["attention_mask"] == 0
    assert bool(padding.any())
    with torch.no_grad():
        (before,) = module(**inputs).values()
        other = torch.where(padding, inputs["input_ids"] + 1, inputs["input_ids"])
        (after,) = module(**{**inputs, "input_ids": other}).values()
    kept = ~padding if before.ndim == 3 else slice(None)
    torch.testing.assert_close(after[kept], before[kept])


@pytest.mark.parametrize("name", ["mobilenet_v2", "t5_encoder"])
def test_weights_are_the_same_bits_in_another_process(name, recipe):
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import torch\n"
        "torch.set_num_threads(2); torch.manual_seed(7)\n"
        f"state = __import__({name!r}).build().state_dict()\n"
        "found = hashlib.sha256()\n"
        "for key, tensor in state.items():\n"
        "    found.update(f'{key}{tuple(tensor.shape)}{tensor.dtype}'.encode())\n"
        "    found.update(tensor.contiguous().numpy().tobytes())\n"
        "print(found.hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(FOLDER)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest(recipe(name).build())
