"""A pretraining: its parts, its update, how it is saved and restored, and how it ends."""
