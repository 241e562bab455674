"""The file `model.lepton`: how it is written, read and checked; running it is `runtime.engines`."""
