"""Numbers and their intervals; never a model."""
