"""Numbers moved between neighbouring layers before they are rounded; the rounding is `passes.quantize`."""
