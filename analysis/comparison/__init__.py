"""Comparison of finished runs: reading, grouping and measuring them, and writing tables, figures and pages."""
