"""What matrix products take into their weights, bias and scale, and which of them become one."""
