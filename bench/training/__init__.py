"""Losses, optimiser, loop and checkpoints."""
