"""Constants that are stored twice; nodes that compute the same are `passes.clean`."""
