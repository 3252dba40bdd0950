"""Objectives on single observations."""
