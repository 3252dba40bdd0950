"""Plumbing that knows no reinforcement learning: checkpoints, files, pictures in files, logger, signals, processes."""
