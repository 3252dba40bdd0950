"""What holds for every test."""

import os
import random
from collections.abc import Generator
from importlib.util import find_spec

import numpy as np
import pytest
import torch

WITHOUT_DMC = "dm-control is missing"  # what a test that needs it ends with, directly or in what it compares


def pytest_configure(config: pytest.Config) -> None:
    """The tests compare bits and fork, which a GPU does not bear: they see one only with `-m gpu`.

    They run with one thread, which is faster for tensors this small, and gives the same sums on every machine.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the programs that tests start
    torch.set_num_threads(1)
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """A test draws the same numbers whichever tests ran before it, also from the generators of other libraries."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where dm_control cannot be had (Python 3.13 and later), the tests that need it are skipped."""
    report = yield
    if report.failed and not find_spec("dm_control") and call.excinfo and WITHOUT_DMC in str(call.excinfo.value):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {WITHOUT_DMC}")
    return report
