"""Which mix of float and integer layers keeps the user's goals; what one layer costs is `compiler.quantization`."""
