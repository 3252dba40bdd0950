"""Plumbing that knows no reinforcement learning: checkpoints, files of pictures, logger, seeding, signals, processes."""
