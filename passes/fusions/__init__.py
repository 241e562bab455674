"""Several nodes that compute one thing, by family; one folder each."""
