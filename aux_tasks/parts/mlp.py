"""The perceptron that most heads are."""

from torch import nn

from harness.checks import check_least


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Return a perceptron with one hidden layer, which is layer-normalised.

    Raises:
        ValueError: the hidden layer has no unit.
    """
    check_least(1, hidden=hidden)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, outputs))
