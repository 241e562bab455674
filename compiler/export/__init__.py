"""How a PyTorch module becomes an ONNX graph with named inputs and outputs; nothing is rewritten here."""
