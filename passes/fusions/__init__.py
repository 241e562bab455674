"""The fusion rules, one family per file; the `fuse_*` passes beside this folder apply them."""
