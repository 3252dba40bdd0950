"""The schema of every command, and presets that override it. Nothing else lives here."""
