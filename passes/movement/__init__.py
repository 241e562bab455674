"""Nodes that move, widen or cut values for nothing; nodes that compute are `passes.fusions`."""
