"""Auxiliary tasks on rewards, actions and dynamics."""
