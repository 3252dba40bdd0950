"""Probes of a trained encoder: their parts and their scores."""
