"""Sums that join the normalisation or activation behind them."""
