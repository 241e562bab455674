"""A local folder in Hugging Face's layout as a source: config.json and safetensors weights.

Nothing is downloaded, no code in the folder is run, and pickled weights are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leptonc.compiler.errors import CompileExtraMissingError, SourceError
from leptonc.compiler.sources.dimensions import DynamicDim
from leptonc.compiler.sources.files import hash_file, pickle_refused
from leptonc.compiler.sources.source import Source
from leptonc.compiler.sources.torch_reference import TorchReference, hash_weights
from leptonc.runtime.arrays import Arrays, load_arrays

WEIGHTS = "model.safetensors"
DEFAULT_POSITIONS = 512
EXAMPLE_BATCH = 2
EXAMPLE_LENGTH = 16
# Names of weights in one message.
_LISTED = 8


def open_folder(spec: str, inputs: Path | None) -> Source:
    """Load the model that `config.json` names, in eval mode.

    Encoders and decoders over tokens, and vision models over pixels, get example inputs and
    dynamic dimensions of their own; anything else needs a recipe.

    Raises:
        SourceError: No config.json, no safetensors weights, custom code, or a model whose
            inputs are not known here.
        PickleRefusedError: The folder holds pickled weights only.
        CompileExtraMissingError: transformers is not installed.
    """
    folder = Path(spec)
    config = _read_config(folder)
    weights = _weight_files(folder)
    if not weights:
        pickles = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt"))
        if pickles:
            raise pickle_refused(str(pickles[0]))
        raise SourceError(
            "the folder holds no safetensors weights",
            where=spec,
            fix="save the model with save_pretrained(folder, safe_serialization=True)",
        )
    module, notes = _build(folder, config)
    example, axes = _text_inputs(module) if _is_text(module) else _vision_inputs(module)
    if inputs:
        example = load_arrays(inputs)
    digest = hashlib.sha256()
    for file in (folder / "config.json", *weights):
        hash_file(file, digest)
    weight_bytes = hash_weights(module, hashlib.sha256())
    return Source(
        kind="hugging-face",
        name=folder.resolve().name,
        inputs=example,
        axes=axes,
        reference=TorchReference(module),
        fingerprint=digest.hexdigest(),
        program=module,
        weight_bytes=weight_bytes,
        notes=notes,
    )


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that transformers reads weights from, the index of shards among them."""
    whole, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return [index, *(folder / name for name in sorted(names))]
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"the index of the weights cannot be read: {error}", where=str(index)
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise SourceError(
            "the folder has no config.json",
            where=str(folder),
            fix="give a folder written by save_pretrained(), or a recipe.py",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SourceError(f"config.json cannot be read: {error}", where=str(path)) from error
    if not isinstance(config, dict):
        raise SourceError("config.json is not a JSON object", where=str(path))
    if config.get("auto_map"):
        raise SourceError(
            "the model needs code of its own from the folder (auto_map), which is not run",
            where=str(path),
            fix="write a recipe.py that imports the model class you trust",
        )
    return config


def _build(folder: Path, config: dict[str, Any]) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Return the model, every weight of it from the folder, and what to tell the user."""
    try:
        import transformers
    except ImportError as error:
        raise CompileExtraMissingError(
            "transformers is not installed, and this source needs it",
            where=str(folder),
            fix="pip install transformers",
        ) from error
    model_class = _model_class(transformers, folder, config)
    try:
        # The other forms of attention guard against empty rows, which no engine can fuse.
        module, report = model_class.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="eager",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"transformers cannot load the model: {first}",
            where=str(folder),
            fix="save it again with save_pretrained(folder); --debug shows transformers' report",
        ) from error
    notes = _require_complete(report, folder, type(module).__name__)
    if getattr(module.config, "is_encoder_decoder", False):
        raise SourceError(
            f"{type(module).__name__} is an encoder-decoder, whose two graphs need a recipe each",
            where=str(folder),
            fix="see models/t5_encoder.py for a recipe of the encoder",
        )
    if hasattr(module.config, "use_cache"):
        module.config.use_cache = False
    found: torch.nn.Module = module.float().eval()
    return found, notes


def _model_class(transformers: Any, folder: Path, config: dict[str, Any]) -> Any:
    """Return the class that the config names; a folder that names none is its bare model."""
    names = config.get("architectures") or []
    if not names:
        return transformers.AutoModel
    found = getattr(transformers, str(names[0]), None)
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    raise SourceError(
        f"transformers {transformers.__version__} has no model class {names[0]!r}",
        where=str(folder / "config.json"),
        fix='update transformers, correct "architectures", or write a recipe.py',
    )


def _require_complete(report: dict[str, Any], folder: Path, name: str) -> tuple[str, ...]:
    """Refuse a model of which transformers made up weights; return what it left unread.

    Raises:
        SourceError: A weight is missing from the files, or is of another shape there.
    """
    mismatched = [
        f"{key} ({list(there)} in the files, {list(wanted)} in the model)"
        for key, there, wanted in sorted(report["mismatched_keys"])
    ]
    for kind, keys in (
        ("are missing from the files", sorted(report["missing_keys"])),
        ("have another shape in the files", mismatched),
    ):
        if keys:
            raise SourceError(
                f"{len(keys)} weights of {name} {kind}: {_some(keys)}",
                where=str(folder),
                fix="correct config.json, or save the model again with save_pretrained(folder)",
            )
    left = sorted(report["unexpected_keys"])
    return (f"weights in the files that {name} does not have: {_some(left)}",) if left else ()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"


def _is_text(module: torch.nn.Module) -> bool:
    return getattr(module, "main_input_name", "input_ids") == "input_ids"


def _text_inputs(module: torch.nn.Module) -> tuple[Arrays, dict[str, dict[int, DynamicDim]]]:
    config: Any = module.config
    if not isinstance(getattr(config, "vocab_size", None), int):
        raise SourceError(
            f"the inputs of {type(module).__name__} are not known here (several kinds at once)",
            fix="write a recipe.py with build() and example_inputs()",
        )
    limit = getattr(config, "max_position_embeddings", None) or DEFAULT_POSITIONS
    longest = max(2, min(int(limit), 1 << 17))
    if getattr(config, "model_type", "") in {"roberta", "xlm-roberta", "camembert", "mpnet"}:
        # These models number positions from pad_token_id + 1.
        longest -= 2
    length = min(EXAMPLE_LENGTH, longest)
    vocabulary = int(config.vocab_size)
    tokens = np.random.default_rng(0).integers(
        min(5, vocabulary - 1), vocabulary, (EXAMPLE_BATCH, length)
    )
    example = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    batch, sequence = DynamicDim("batch", 1, None), DynamicDim("sequence", 1, longest)
    return example, {name: {0: batch, 1: sequence} for name in example}


def _vision_inputs(module: torch.nn.Module) -> tuple[Arrays, dict[str, dict[int, DynamicDim]]]:
    config: Any = module.config
    name = getattr(module, "main_input_name", "")
    if name != "pixel_values":
        raise SourceError(
            f"the inputs of {type(module).__name__} are not known here (it takes {name!r})",
            fix="write a recipe.py with build() and example_inputs()",
        )
    size = getattr(config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    channels = int(getattr(config, "num_channels", 3))
    pixels = np.random.default_rng(0).standard_normal(
        (EXAMPLE_BATCH, channels, height, width), dtype=np.float32
    )
    return {name: pixels}, {name: {0: DynamicDim("batch", 1, None)}}
