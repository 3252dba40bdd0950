"""The tests compare bits and fork, which a GPU does not bear: they see one only with `-m gpu`."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
