"""Stale stages of the pipeline, several at once, on one machine or on a Ray cluster: `python -m bench.sweep`."""
