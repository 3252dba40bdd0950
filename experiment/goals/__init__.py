"""Goal spaces: how an encoder defines goals, how well, and the environment as an agent sees it through them."""
