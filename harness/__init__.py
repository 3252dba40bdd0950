"""Infrastructure without reinforcement learning: checkpoints, files, pictures, logger, seeding, signals, processes."""
