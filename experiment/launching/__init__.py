"""How a command starts: check its words, run it, or run its sweep in other processes."""
