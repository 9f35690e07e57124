"""The benchmark: data in, numbers out."""
