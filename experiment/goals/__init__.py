"""Goal spaces: how an encoder defines goals, how well it does, and the environment through it."""
