"""What is known of a value before the model runs: type, dimensions, contents; not its range, which is `passes.bounds`."""
