"""How a config becomes a run: build its parts, claim its folder, save and restore. Losses are computed elsewhere."""
