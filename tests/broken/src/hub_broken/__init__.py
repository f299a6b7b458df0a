"""Optimizers that each break one promise."""
