"""The recipes that read what another call has computed."""

from __future__ import annotations

import torch


def test_a_step_of_gpt2_with_its_cache_equals_reading_all_tokens(recipe):
    loaded = recipe("gpt2_decode")
    module = loaded.build()
    tokens = torch.arange(1, 9).reshape(2, 4)
    with torch.no_grad():
        whole = module.model(input_ids=tokens).logits[:, -1]
        before = module.model(input_ids=tokens[:, :3], use_cache=True).past_key_values.layers
        keys = torch.stack([layer.keys for layer in before])
        values = torch.stack([layer.values for layer in before])
        step = module(tokens[:, 3:], keys, values)
    torch.testing.assert_close(step["logits"], whole, atol=1e-4, rtol=1e-4)
    assert step["keys"].shape == step["values"].shape == (12, 2, 12, 4, 64)
    torch.testing.assert_close(step["keys"][:, :, :, :3], keys)
    assert sum(p.numel() for p in module.parameters()) == 124_439_808


def test_the_t5_decoder_does_not_read_masked_states(recipe):
    loaded = recipe("t5_decoder")
    module, inputs = loaded.build(), loaded.example_inputs()
    masked = inputs["encoder_attention_mask"] == 0
    assert bool(masked.any())
    with torch.no_grad():
        before = module(**inputs)["last_hidden_state"]
        other = torch.where(masked[..., None], 7.0, inputs["encoder_hidden_states"])
        after = module(**{**inputs, "encoder_hidden_states": other})["last_hidden_state"]
    assert before.shape == (2, 8, 512)
    torch.testing.assert_close(after, before)
