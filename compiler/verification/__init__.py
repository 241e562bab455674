"""Whether a result is right, and if not, which node, pass or line is to blame; not how it is mended."""
