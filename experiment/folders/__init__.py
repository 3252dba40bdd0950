"""Files of a run: its folder, its weights, shipped and foreign folders, and the commands that come next."""
