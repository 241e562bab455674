"""What convolutions take into their weights, bias and pads."""
