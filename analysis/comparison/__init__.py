"""Finished runs side by side: what is read, grouped and measured of them, and the tables, figures and pages of that."""
