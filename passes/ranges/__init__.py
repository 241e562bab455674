"""Calibration tables: what was observed of each tensor, and which range follows; observing is `compiler.calibration`."""
