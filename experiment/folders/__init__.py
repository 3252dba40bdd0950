"""Files of a run: its folder, its weights, and folders that others made."""
