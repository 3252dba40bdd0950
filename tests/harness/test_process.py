"""Threads from what the run was given: the config, the environment, the affinity, the container's quota."""

import fcntl
import os
import time
from pathlib import Path

import pytest
import torch

from harness import process
from harness.process import available_cores, exclusive, tune_process


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the quota file; eight cores by affinity."""
    file = tmp_path / "cpu.max"
    monkeypatch.setattr(process, "Path", lambda _: file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return file


@pytest.mark.parametrize(("content", "cores"), [
    (None, 8), ("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1),
    ("3200000 100000", 8),
])  # fmt: skip
def test_cores_are_the_affinity_capped_by_the_quota(
    content: str | None, cores: int, quota: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content:
        quota.write_text(content + "\n")
    assert available_cores() == cores
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)  # all where there is no affinity
    assert available_cores() == cores


@pytest.mark.parametrize(("asked", "variable", "threads"), [
    (3, "2", 3), (0, "2", 2), (0, "", 8), (0, None, 8), (0, "4,2", 4), (0, " 4 ", 4), (2, "abc", 2),
    (9, None, 8), (999, None, 8), (0, "64", 8),
])  # fmt: skip
def test_threads_are_those_asked_for_or_of_the_environment_or_the_cores(
    asked: int,
    variable: str | None,
    threads: int,
    quota: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert tune_process(asked) == torch.get_num_threads()
    assert chosen == [threads]
    assert ("threads" in caplog.text) == (max(asked, int(variable == "64" and 64)) > 8)


@pytest.mark.parametrize("variable", ["abc", "0", "-1", "1.5", ",2", "1 2"])
def test_a_number_of_threads_that_is_none_is_named(variable: str, quota: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with pytest.raises(ValueError, match=f"OMP_NUM_THREADS={variable}: "):
        tune_process(0)


def test_a_folder_belongs_to_one_run_until_it_ends(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(ValueError, match=f"{tmp_path} is in use"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path) as folder:
        assert folder == tmp_path


def test_a_look_at_a_lock_does_not_stop_a_run_that_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as `in_use` does
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with exclusive(tmp_path) as folder:
            assert folder == tmp_path


def test_a_lock_is_not_taken_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(OSError, match="lock"), exclusive(tmp_path):
        pass
    assert victim.read_text() == "mine"
