"""Tiny configurations of many architectures, each a recipe of the compiler.

`leptonc compile tests/architectures/architectures.py:bert_sdpa` compiles one of them. Nothing is
downloaded: the weights are random, seeded, and without constants that a compiler could fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import tiny_inputs as given
import tiny_modules as forward
import torch
from tiny_weights import draw_weights, seeded
from torch import nn

Config = Mapping[str, Any]

EAGER, SDPA, NONE = "eager", "sdpa", "none"
BOTH = (EAGER, SDPA)


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        name: In lower case, an identifier.
        model: The class in transformers.
        config: The arguments of its configuration; a mapping under `backbone_config` is that of
            a ResNet.
        forward: What is exported.
        inputs: With what.
        attention: The implementations of attention that the model has, or `none` without one.
    """

    name: str
    model: str
    config: Config
    forward: type[forward.Wrapped]
    inputs: given.Inputs
    attention: tuple[str, ...] = BOTH


@dataclass(frozen=True)
class TinyModel:
    """An architecture with one implementation of attention: a recipe."""

    architecture: Architecture
    attention: str

    @property
    def name(self) -> str:
        """The name that the compiler finds it by."""
        return f"{self.architecture.name}_{self.attention}"

    def build(self) -> nn.Module:
        """Return the module in eval mode, with the same weights every time."""
        import transformers

        kind = getattr(transformers, self.architecture.model)
        config = dict(self.architecture.config)
        if "backbone_config" in config:
            config["backbone_config"] = transformers.ResNetConfig(**config["backbone_config"])
        with seeded(0):
            model = kind(kind.config_class(**config)).eval()
            if self.attention != NONE:
                model.set_attn_implementation(self.attention)
            module = self.architecture.forward(model)
            draw_weights(module, self.example_inputs().get("pixel_values"))
        return module.eval()

    def example_inputs(self) -> dict[str, torch.Tensor]:
        """Return two rows."""
        return self.architecture.inputs.example()

    def dynamic_shapes(self) -> dict[str, given.Axes]:
        """Return the dynamic axes."""
        return self.architecture.inputs.axes


def _with_cache(row: Architecture, heads: int = 4, **changes: Any) -> Architecture:
    """Return a decoder's row for a step of generation."""
    return replace(
        row,
        name=f"{row.name}_cache",
        config={**row.config, **changes},
        forward=forward.Decoder,
        inputs=given.step(heads, head_size=16),
    )


_SIZES: Config = {
    "vocab_size": given.VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
# Two query heads share each head of keys and values.
_GROUPED: Config = {**_SIZES, "num_key_value_heads": 2, "head_dim": 16, "use_cache": False}
_GPT: Config = {
    "vocab_size": given.VOCABULARY,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "use_cache": False,
}
_T5: Config = {
    "vocab_size": given.VOCABULARY,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 96,
    "num_layers": 2,
    "num_heads": 4,
}
_ENCODER_DECODER: Config = {
    "vocab_size": given.VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
}
_WHISPER: Config = {
    **_ENCODER_DECODER,
    "max_source_positions": 30,
    "max_target_positions": 64,
    "num_mel_bins": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_PATCHES: Config = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


def _text(name: str, model: str, config: Config, **more: Any) -> Architecture:
    return Architecture(name, model, config, forward.Text, given.text(), **more)


def _image(name: str, model: str, config: Config, size: int = 32, **more: Any) -> Architecture:
    return Architecture(name, model, config, forward.Image, given.images(size), **more)


_ENCODERS = (
    _text("bert", "BertModel", _SIZES),
    _text(
        "distilbert",
        "DistilBertModel",
        {
            "vocab_size": given.VOCABULARY,
            "dim": 64,
            "hidden_dim": 96,
            "n_layers": 2,
            "n_heads": 4,
            "max_position_embeddings": 64,
        },
    ),
    _text("roberta", "RobertaModel", {**_SIZES, "pad_token_id": 1}),
    _text("albert", "AlbertModel", {**_SIZES, "embedding_size": 32}),
    _text("electra", "ElectraModel", {**_SIZES, "embedding_size": 32}),
    _text(
        "deberta_v2",
        "DebertaV2Model",
        {
            **_SIZES,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "max_relative_positions": 64,
        },
        attention=(EAGER,),
    ),
    _text("mpnet", "MPNetModel", _SIZES, attention=(EAGER,)),
    _text("modernbert", "ModernBertModel", {**_SIZES, "pad_token_id": 0, "local_attention": 8}),
    _text("t5_encoder", "T5EncoderModel", _T5),
)

_DECODERS = (
    _text("gpt2", "GPT2Model", _GPT),
    _text("gptj", "GPTJModel", {**_GPT, "rotary_dim": 8}, attention=(EAGER,)),
    _text("gpt_neox", "GPTNeoXModel", {**_SIZES, "use_cache": False}),
    _text("llama", "LlamaModel", _GROUPED),
    _text("mistral", "MistralModel", {**_GROUPED, "sliding_window": 8}),
    _text("qwen2", "Qwen2Model", _GROUPED),
    _text("qwen3", "Qwen3Model", _GROUPED),
    _text("gemma2", "Gemma2Model", {**_GROUPED, "sliding_window": 8}, attention=(EAGER,)),
    _text("phi3", "Phi3Model", {**_GROUPED, "pad_token_id": 0}),
    _text(
        "opt",
        "OPTModel",
        {
            "vocab_size": given.VOCABULARY,
            "hidden_size": 64,
            "ffn_dim": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 64,
            "use_cache": False,
        },
    ),
    _text(
        "bloom",
        "BloomModel",
        {"vocab_size": given.VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4},
        attention=(EAGER,),
    ),
)

_ENCODER_DECODERS = (
    Architecture("t5", "T5Model", _T5, forward.TextToText, given.text_to_text()),
    Architecture(
        "bart",
        "BartModel",
        {**_ENCODER_DECODER, "max_position_embeddings": 64},
        forward.TextToText,
        given.text_to_text(),
    ),
    Architecture(
        "whisper", "WhisperModel", _WHISPER, forward.SpeechToText, given.spectrograms(decoder=True)
    ),
    Architecture(
        "whisper_encoder",
        "WhisperModel",
        _WHISPER,
        forward.Spectrogram,
        given.spectrograms(decoder=False),
    ),
)

_IMAGES = (
    _image("vit", "ViTModel", _PATCHES),
    _image("deit", "DeiTModel", _PATCHES),
    _image("dinov2", "Dinov2Model", {**_PATCHES, "mlp_ratio": 2}),
    _image(
        "swin",
        "SwinModel",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
    ),
    _image(
        "segformer",
        "SegformerModel",
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [16, 32],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
        },
        size=64,
    ),
    _image(
        "convnext",
        "ConvNextModel",
        {"hidden_sizes": [16, 32], "depths": [2, 2], "num_stages": 2, "image_size": 32},
        attention=(NONE,),
    ),
    _image(
        "resnet",
        "ResNetModel",
        {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [2, 2]},
        attention=(NONE,),
    ),
    _image(
        "bit",
        "BitModel",
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1], "num_groups": 4},
        attention=(NONE,),
    ),
    _image(
        "mobilenet_v2",
        "MobileNetV2Model",
        {"image_size": 64, "depth_multiplier": 0.35},
        size=64,
        attention=(NONE,),
    ),
    _image(
        "efficientnet",
        "EfficientNetModel",
        {
            "image_size": 64,
            "width_coefficient": 0.25,
            "depth_coefficient": 0.25,
            "hidden_dim": 320,
        },
        size=64,
        attention=(NONE,),
    ),
    _image(
        "detr",
        "DetrModel",
        {
            "use_timm_backbone": False,
            "use_pretrained_backbone": False,
            "backbone": None,
            "backbone_config": {
                "embedding_size": 16,
                "hidden_sizes": [16, 32, 32, 32],
                "depths": [1, 1, 1, 1],
                "out_features": ["stage4"],
            },
            **{key: value for key, value in _ENCODER_DECODER.items() if key != "vocab_size"},
            "num_queries": 5,
        },
        size=64,
        attention=(EAGER,),
    ),
)

_OTHERS = (
    Architecture(
        "clip",
        "CLIPModel",
        {
            "text_config": {
                **_SIZES,
                "pad_token_id": 0,
                "bos_token_id": 1,
                "eos_token_id": 2,
            },
            "vision_config": _PATCHES,
        },
        forward.TextAndImage,
        given.text_and_image(32),
    ),
    Architecture(
        "wav2vec2",
        "Wav2Vec2Model",
        {
            "vocab_size": 32,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_feat_extract_layers": 2,
            "conv_dim": (16, 16),
            "conv_stride": (5, 2),
            "conv_kernel": (10, 3),
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        forward.Waveform,
        given.waveforms(),
    ),
    Architecture(
        "mamba",
        "MambaModel",
        {
            "vocab_size": given.VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "expand": 2,
            "use_cache": False,
        },
        # The scan over the tokens is unrolled, so their number is part of the graph.
        forward.Tokens,
        given.tokens(11),
        attention=(NONE,),
    ),
)

_BY_NAME = {row.name: row for row in _DECODERS}

_WITH_CACHE = (
    _with_cache(_BY_NAME["gpt2"]),
    _with_cache(_BY_NAME["gpt_neox"]),
    _with_cache(_BY_NAME["llama"], heads=2),
    # A cache with a window drops tokens: how many is not a function of shapes alone.
    _with_cache(_BY_NAME["mistral"], heads=2, sliding_window=None),
    _with_cache(_BY_NAME["qwen2"], heads=2),
    _with_cache(_BY_NAME["qwen3"], heads=2),
    _with_cache(_BY_NAME["gemma2"], heads=2, layer_types=["full_attention"] * 2),
    _with_cache(_BY_NAME["phi3"], heads=2),
    _with_cache(_BY_NAME["opt"]),
)

ARCHITECTURES = (*_ENCODERS, *_DECODERS, *_WITH_CACHE, *_ENCODER_DECODERS, *_IMAGES, *_OTHERS)

TINY_MODELS = {
    tiny.name: tiny
    for row in ARCHITECTURES
    for tiny in (TinyModel(row, attention) for attention in row.attention)
}


def __getattr__(name: str) -> TinyModel:
    """Let the compiler find a row as an attribute of this file."""
    if name not in TINY_MODELS:
        raise AttributeError(f"no tiny model is named {name!r}")
    return TINY_MODELS[name]
