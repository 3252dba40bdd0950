"""Measurements of trained networks: evaluation, probes, statistics, attribution, pictures. Nothing is trained here."""
