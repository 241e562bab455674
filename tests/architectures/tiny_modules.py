"""What is exported: models of transformers behind a forward() with named tensors only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Outputs = dict[str, Tensor]


class Wrapped(nn.Module):
    """Holds the model; each subclass says which tensors go in and come out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Text(Wrapped):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        result = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return {"hidden": result.last_hidden_state}


class Tokens(Wrapped):
    """Without a mask."""

    def forward(self, input_ids: Tensor) -> Outputs:
        return {"hidden": self.model(input_ids=input_ids).last_hidden_state}


class Image(Wrapped):
    def forward(self, pixel_values: Tensor) -> Outputs:
        return {"hidden": self.model(pixel_values=pixel_values).last_hidden_state}


class Waveform(Wrapped):
    def forward(self, input_values: Tensor) -> Outputs:
        return {"hidden": self.model(input_values=input_values).last_hidden_state}


class Spectrogram(Wrapped):
    """The encoder alone."""

    def forward(self, input_features: Tensor) -> Outputs:
        return {"hidden": self.model.encoder(input_features).last_hidden_state}


class TextToText(Wrapped):
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, decoder_input_ids: Tensor
    ) -> Outputs:
        result = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            use_cache=False,
        )
        return {"hidden": result.last_hidden_state}


class SpeechToText(Wrapped):
    def forward(self, input_features: Tensor, decoder_input_ids: Tensor) -> Outputs:
        result = self.model(
            input_features=input_features, decoder_input_ids=decoder_input_ids, use_cache=False
        )
        return {"hidden": result.last_hidden_state}


class TextAndImage(Wrapped):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> Outputs:
        result = self.model(
            input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values
        )
        return {"text": result.text_embeds, "image": result.image_embeds}


class Decoder(Wrapped):
    """A step of generation: the keys and values of earlier tokens in, those of all tokens out.

    The mask comes in two parts because the length of the whole is no dimension of its own.
    """

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        past_mask: Tensor,
        position_ids: Tensor,
        past_key_0: Tensor,
        past_value_0: Tensor,
        past_key_1: Tensor,
        past_value_1: Tensor,
    ) -> Outputs:
        result = self.model(
            input_ids=input_ids,
            attention_mask=torch.cat([past_mask, attention_mask], dim=1),
            position_ids=position_ids,
            past_key_values=self._cache((past_key_0, past_value_0), (past_key_1, past_value_1)),
            use_cache=True,
        )
        return {"hidden": result.last_hidden_state, **_present(result.past_key_values)}

    def _cache(self, *layers: tuple[Tensor, Tensor]) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        for index, (key, value) in enumerate(layers):
            cache.update(key, value, index)
        return cache


def _present(cache: Any) -> Outputs:
    present: Outputs = {}
    for index, layer in enumerate(cache.layers):
        present[f"present_key_{index}"] = layer.keys
        present[f"present_value_{index}"] = layer.values
    return present
