"""What a checkpoint holds, which one is found, and what two of them share."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_help import NEW, OLD, leftovers, same, steps
from safetensors.torch import load_file

from harness import checkpoint
from harness.checkpoint import load, load_latest, save
from harness.tree import Segment


def test_files_are_plain_safetensors_with_the_listed_hashes(tmp_path: Path) -> None:
    mixed = [torch.ones(3, dtype=torch.bool), torch.arange(5.0, dtype=torch.float64), torch.ones(7, dtype=torch.int16)]
    path = save(tmp_path, 123, {"agent": mixed})
    assert path.name == "step_000000123"
    stored = load_file(path / "agent.safetensors")
    assert all(same(stored[str(i)], tensor) for i, tensor in enumerate(mixed))
    assert all(tensor.data_ptr() % tensor.itemsize == 0 for tensor in load(path).state["agent"])
    manifest = json.loads((path / "manifest.json").read_text())["manifest"]
    for file, record in manifest["files"].items():
        content = (path / file).read_bytes()
        assert record == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_training_continues_bit_for_bit(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 2))
        return net, torch.optim.Adam(net.parameters(), lr=0.1, amsgrad=True)

    def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        x = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    net, optimizer = make()
    train(net, optimizer, 0)
    save(tmp_path, 1, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
    other, other_optimizer = make()
    state = load_latest(tmp_path).state
    assert set(state["optimizer"]["state"]) == {0, 1, 2, 3, 4, 5}
    other.load_state_dict(state["net"])
    other_optimizer.load_state_dict(state["optimizer"])
    for each in (net, optimizer), (other, other_optimizer):
        train(*each, 1)
    assert same(dict(other.state_dict()), dict(net.state_dict()))
    # The loaded arrays are private maps: training in place never reached the file.
    assert load_latest(tmp_path).step == 1


def test_memory_mapped_and_strided_arrays_are_stored_and_mapped_again(tmp_path: Path) -> None:
    ring = np.memmap(tmp_path / "ring", np.uint8, "w+", shape=(6, 3, 5))
    ring[:] = np.arange(90).reshape(6, 3, 5)
    frozen = np.memmap(tmp_path / "ring", np.uint8, "r", shape=(6, 3, 5))
    views = {"rows": frozen[2:5], "column": ring[::-2, 1], "f": np.asfortranarray(ring)}
    replay = load(save(tmp_path / "run", 1, {"replay": views})).state["replay"]
    assert same(replay, {name: np.array(view) for name, view in views.items()})

    def anonymous_kib() -> int:
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

    save(tmp_path, 1, {"replay": np.ones((64, 1 << 20), np.uint8)})
    before = anonymous_kib()
    assert load_latest(tmp_path).state["replay"].sum(dtype=np.int64) == 64 << 20
    assert anonymous_kib() - before < 16 << 10


def test_the_newest_are_kept_and_an_abandoned_future_is_removed(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / ".tmp-1-step_000000001").mkdir()
    assert load_latest(tmp_path / "missing") is load_latest(tmp_path) is None
    for step in (5, 20, 100, 1_234_567_890):
        save(tmp_path, step, OLD | {"step": step})
    assert steps(tmp_path) == ["step_000000100", "step_1234567890"]
    assert load_latest(tmp_path).state["step"] == 1_234_567_890
    save(tmp_path, 101, NEW)
    assert steps(tmp_path) == ["step_000000100", "step_000000101"]
    assert same(load_latest(tmp_path).state, NEW)
    assert "step_1234567890 removed" in caplog.text


def test_only_the_dead_are_swept(tmp_path: Path) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    for owner in (pid, os.getpid(), os.getppid()):
        (tmp_path / f".tmp-{owner}-step_000000007").mkdir()
    save(tmp_path, 8, OLD)
    assert leftovers(tmp_path) == [f".tmp-{os.getppid()}-step_000000007"]


# --- segments ---

A, B, C = (Segment(f"rows_{i}_{i + 3}", np.arange(i, i + 3)) for i in (0, 3, 6))


def inode(path: Path, segment: Segment) -> int:
    return (path / "segments" / f"{segment.name}.safetensors").stat().st_ino


def test_segments_are_shared_neither_read_nor_counted_and_outlive_their_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "KEEP", 1)
    big = Segment("big", np.zeros(1_000_000, np.uint8))
    first = save(tmp_path, 1, {"replay": {"frames": [A, B]}, "big": big})
    shared = inode(first, B)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    second = save(tmp_path, 2, {"replay": {"frames": [B, C]}, "more": B, "big": big})
    assert inode(second, B) == shared
    assert not first.exists()
    assert same(load(second).state, {"replay": {"frames": [B, C]}, "more": B, "big": big})
    third = save(tmp_path, 3, load(second).state)
    assert inode(third, B) == shared
    assert same(load_latest(tmp_path).state["replay"], {"frames": [B, C]})


@pytest.mark.parametrize(
    "other", [np.arange(7, 10), np.arange(3, 7), np.arange(3.0, 6.0)], ids=["bytes", "shape", "dtype"]
)
def test_a_resumed_run_never_links_what_it_did_not_see(
    tmp_path: Path, other: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "KEEP", 3)
    first = save(tmp_path, 1, {"replay": [A]})
    abandoned = save(tmp_path, 2, {"replay": [A, B]})
    load(first)
    recomputed = Segment(B.name, other)
    third = save(tmp_path, 3, {"replay": [A, recomputed]})
    assert inode(third, A) == inode(abandoned, A)
    assert same(load(third).state["replay"], [A, recomputed])
    assert same(load(abandoned).state["replay"], [A, B])


def test_segments_are_written_anew_where_links_do_not_work_or_the_old_is_torn(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("links are not allowed")

    first = save(tmp_path, 1, {"replay": A})
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        second = save(tmp_path, 2, {"replay": A})
    assert inode(first, A) != inode(second, A)
    assert same(load(second).state["replay"], A)
    (second / "segments" / f"{A.name}.safetensors").write_bytes(b"")
    assert same(load(save(tmp_path, 3, {"replay": A})).state["replay"], A)
