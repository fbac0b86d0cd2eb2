"""Weights: finding, fetching, converting and placing them."""
