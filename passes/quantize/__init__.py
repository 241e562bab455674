"""Integers: the plan, the scales, the graph; which plan is best is found in `compiler.accuracy`."""
