"""Auxiliary tasks on the order and motion of frames."""
