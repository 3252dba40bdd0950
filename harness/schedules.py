"""Values that follow from the step of a run."""


def linear(start: float, end: float, step: float, steps: float) -> float:
    """From `start` at step 0 to `end` at `steps` and after."""
    return start + (end - start) * min(1.0, step / steps)
