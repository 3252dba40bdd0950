"""Auxiliary tasks on single observations."""
