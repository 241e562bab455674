"""What a rule is, and who applies it: the public face for those who write passes; the rules stand with their families."""
