"""What is dead, does nothing, or is said twice; what can be computed now is `passes.fold`."""
