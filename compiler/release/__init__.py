"""Whether an artifact may ship; that it is right is `compiler.verification`."""
