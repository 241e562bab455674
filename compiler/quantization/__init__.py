"""Which layer is rounded how, and what that costs, found by running the model; the rewriting is `passes.quantize`."""
