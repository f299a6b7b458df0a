"""Classify modules, select low-rank targets and group parameters."""
