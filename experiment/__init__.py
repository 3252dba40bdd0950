"""How a config becomes a run: build its parts, claim its folder, save and restore. No loss is computed here."""
