"""Auxiliary tasks whose features are goals: what to reach, how far away it is, and what could be reached."""
