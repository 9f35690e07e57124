"""Ablations: the declared grid, its comparisons and its pages."""
