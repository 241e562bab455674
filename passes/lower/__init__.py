"""What one engine runs best; what every engine gains from is `passes.fusions`."""
