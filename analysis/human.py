"""Scores of random play and of people in Atari games, by table: the two published ones disagree on people."""

# game: (random, human)
MNIH_2015 = {"pong": (-20.7, 9.3), "breakout": (1.7, 31.8)}
WANG_2016 = {"pong": (-20.7, 14.6), "breakout": (1.7, 30.5)}  # of rliable and of most papers since


def human_normalised(score: float, game: str, table: dict[str, tuple[float, float]] = WANG_2016) -> float:
    """0 for random play, 1 for people.

    Raises:
        KeyError: the table does not have the game.
    """
    random, human = table[game]
    return (score - random) / (human - random)
