"""What the user's model is: its graph or module, its inputs, its data; not how it is exported or run."""
