"""Batch scoring and the choice of the rung that does it."""
