"""Objectives on rewards, actions and dynamics."""
