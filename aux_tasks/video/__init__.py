"""Objectives on the order and motion of frames."""
