"""What can be computed now because all that it needs is constant; what is only known in part is `passes.facts`."""
