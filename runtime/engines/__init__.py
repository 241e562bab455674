"""How each engine opens and runs a variant; one folder an engine."""
