"""Which nodes compute in half width, and the casts around them; integers are `passes.quantize`."""
