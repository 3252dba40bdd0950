"""Plumbing that knows no reinforcement learning: checkpoint files, logger, seeding, signals, processes."""
