"""Faults against programs: a few here, many with `make test-chaos`, whose table is in docs/reliability.md."""

import os
import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chaos_help import AFTER, PROGRAMS, run
from faults import (
    FAULTS,
    Case,
    Fault,
    broken_output,
    damage,
    hostile,
    kill,
    random_config,
    stop,
)

TRIES = int(os.environ.get("TRIES", "10"))  # of each fault on each program, by `make test-chaos`
MANY = {random_config: 10}  # times as many tries of what takes a second each

Prepared = Callable[[str], tuple[Path, Path, float]]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The folder in which a program ran undisturbed, what it began with, and the seconds that it took."""

    @cache
    def make(name: str) -> tuple[Path, Path, float]:
        whole, start = tmp_path_factory.mktemp(name), tmp_path_factory.mktemp(f"{name}-start")
        if name in AFTER:
            shutil.copytree(make(AFTER[name])[0], start, dirs_exist_ok=True)
        shutil.copytree(start, whole, dirs_exist_ok=True)
        return whole, start, run(PROGRAMS[name], whole).check(0).seconds

    return make


def attempt(fault: Fault, name: str, seed: int, prepared: Prepared, folder: Path) -> None:
    """One try; raises AssertionError where something was lost."""
    folder.mkdir()
    fault(Case(PROGRAMS[name], *prepared(name), folder, random.Random(f"{fault.__name__} {name} {seed}")))
    shutil.rmtree(folder)


FEW = [
    (kill, "dqn"),
    (damage, "dqn"),
    (random_config, "dqn"),
    (stop, "adversary"),
    (hostile, "adversary"),
    (broken_output, "adversary"),
]


@pytest.mark.parametrize(("fault", "name"), FEW, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_loses_nothing(fault: Fault, name: str, prepared: Prepared, tmp_path: Path) -> None:
    attempt(fault, name, 0, prepared, tmp_path / "try")


@pytest.mark.chaos
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("fault", "name"),
    [(fault, name) for fault, names in FAULTS.items() for name in names],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_faults_lose_nothing(fault: Fault, name: str, prepared: Prepared, tmp_path: Path, record_property: Any) -> None:
    lost: dict[int, str] = {}
    tries = TRIES * MANY.get(fault, 1)
    for seed in range(tries):
        try:
            attempt(fault, name, seed, prepared, tmp_path / str(seed))
        except Exception as error:  # noqa: BLE001 — counted, and told below
            lost[seed] = f"{type(error).__name__}: {error}"
    record_property("chaos", {"fault": fault.__name__, "program": PROGRAMS[name].name, "tries": tries, "lost": lost})
    assert not lost, "\n".join(f"seed {seed}: {what}" for seed, what in lost.items())
