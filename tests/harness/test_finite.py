"""What is not finite is found wherever it is in a tree, and named."""

from typing import Any

import numpy as np
import pytest
import torch

from harness.finite import NonFiniteError, check_finite
from harness.tree import Segment

HOLDERS = {
    "a": lambda value: {"a": torch.tensor([1.0, value])},
    "a.b.1": lambda value: {"a": {"b": [torch.zeros(2), torch.tensor([[value]])]}},
    "a.0": lambda value: {"a": (np.array([0, value], np.float32), None)},
    "half": lambda value: {"fine": 3, "half": torch.tensor(value, dtype=torch.bfloat16)},
    "rows": lambda value: {"rows": Segment("rows-0", np.array([value]))},
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", HOLDERS)
def test_nan_and_infinity_are_named(where: str, value: float) -> None:
    with pytest.raises(NonFiniteError, match=f"^{where} is {value} at step 7$"):
        check_finite(HOLDERS[where](value), 7)


def test_what_is_finite_passes() -> None:
    whole: Any = {"a": torch.arange(3), "b": np.zeros(0), "c": [torch.ones(2) * 3e38, "text", None, 1.5]}
    check_finite(whole, 7)  # the sum of a tensor may be infinite
