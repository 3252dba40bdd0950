"""Where frames lie: every storage holds the same, says what it needs and refuses what does not fit."""

import errno
import os
import shutil
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from replay_help import NEXT, World, assert_equal_batches, build, filled

from replay.device_sampler import DeviceSampler
from replay.frames import check_room, free_memory
from replay.samplers import PrioritizedSampler, UniformSampler
from replay.storage import FIRST, VALID, EpisodeBounds, FrameStorage


@pytest.mark.parametrize("padding", ["zeros", "repeat"])
@pytest.mark.parametrize("storage", ["mmap", "device"])
def test_storages_agree(storage, padding, tmp_path, monkeypatch):
    world, path = World(3, (3, 5, 7), seed=7), str(tmp_path / "new" / "frames.bin") if storage == "mmap" else None
    ram = build(world, 3 * 24, seed=2, padding=padding)
    other = build(world, 3 * 24, seed=2, storage=storage, path=path, padding=padding)
    world.fill(40, ram, other)
    if storage == "device":  # whose chance is another
        monkeypatch.setattr(other._sampler, "sample", lambda *_: tuple(map(torch.from_numpy, drawn)))
        monkeypatch.setattr(ram._sampler, "sample", lambda *_: drawn)
    for _ in range(3):
        drawn = UniformSampler.sample(ram._sampler, 16, np.random.default_rng(3))
        fields = NEXT | {"clip", "context"}
        assert_equal_batches(ram.sample(16, fields, clip_length=5), other.sample(16, fields, clip_length=5))
    assert other.sample(16, NEXT).obs.is_contiguous(memory_format=torch.channels_last)
    segments = (replay.state_dict()["storage"]["segments"] for replay in (ram, other))
    for left, right in zip(*segments, strict=True):
        assert left.name == right.name
        np.testing.assert_array_equal(left.array, right.array)


def test_segments_keep_their_names_and_bytes():
    world = World(2, (1, 5, 7), seed=9)
    replay = build(world, 2 * 100)
    seen, shared = {}, []
    for _ in range(30):
        world.fill(11, replay)
        segments = {segment.name: segment.array for segment in replay.state_dict()["storage"]["segments"]}
        assert sum(len(frames) for frames in segments.values()) == min(world.rows, 100)
        assert len(segments) <= 36
        shared.append(len(seen.keys() & segments.keys()) / len(segments))
        for name, frames in segments.items():
            begin, end = map(int, name.removeprefix("rows-").split("-"))
            assert frames.shape == (end - begin, 2, 1, 5, 7)
            np.testing.assert_array_equal(frames, seen.setdefault(name, frames.copy()))
    assert np.mean(shared[10:]) > 0.75


@pytest.mark.parametrize(("prioritized", "sampler"), [(False, 1_000_000), (True, 8_128_000)])
def test_memory_of_a_million_atari_transitions(prioritized, sampler):
    replay = build(World(8, (1, 84, 84), seed=0), 1_000_000, prioritized=prioritized)
    bounds = 3 * 8  # of episodes
    assert replay.nbytes == 1_000_000 * (84 * 84 + 4 + 4 + 1 + bounds) + sampler  # frame, action, reward and flags
    assert replay.bytes_per_transition <= 84 * 84 + 42


def held(owner, seen):
    """Bytes of the arrays and tensors that an object holds, by their memory."""
    if isinstance(owner, np.ndarray | torch.Tensor):
        return {owner.data_ptr() if isinstance(owner, torch.Tensor) else owner.ctypes.data: owner.nbytes}
    parts, found = getattr(owner, "__dict__", owner), {}
    if id(owner) not in seen and isinstance(parts, dict | tuple | list):
        seen.add(id(owner))
        for part in parts.values() if isinstance(parts, dict) else parts:
            found |= held(part, seen)
    return found


ON_CPU = {"device": torch.device("cpu")}
HOLDERS = {
    "ram": lambda cells, _: FrameStorage(cells, 2, (1, 5, 7), Discrete(3)),
    "goals": lambda cells, _: FrameStorage(cells, 2, (1, 5, 7), Discrete(3), goal_dim=3),
    "mmap": lambda cells, folder: FrameStorage(cells, 2, (1, 5, 7), Discrete(3), path=str(folder / f"{cells}.bin")),
    "device": lambda cells, _: FrameStorage(cells, 2, (1, 5, 7), Discrete(3), **ON_CPU),
    "goals on a device": lambda cells, _: FrameStorage(cells, 2, (1, 5, 7), Discrete(3), **ON_CPU, goal_dim=3),
    "uniform": lambda cells, _: UniformSampler(cells),
    "prioritised": lambda cells, _: PrioritizedSampler(cells, 0.5),
    "sampler on a device": lambda cells, _: DeviceSampler(cells, None, **ON_CPU),
}


@pytest.mark.parametrize("kind", HOLDERS)
def test_all_memory_is_counted_that_grows_with_the_capacity(kind, tmp_path):
    small, large = (HOLDERS[kind](cells, tmp_path) for cells in (128, 1024))
    grown = sum(held(large, set()).values()) - sum(held(small, set()).values())
    assert grown == large.nbytes - small.nbytes > 0


@pytest.mark.parametrize(("device", "free", "told"), [("cuda", 10**6, True), ("cuda", 10**3, False), ("cpu", 0, False)])
def test_memory_is_announced_and_that_it_would_fit_on_the_gpu(device, free, told, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 10**9))
    monkeypatch.setattr("replay.frames.free_memory", lambda: 2 * 10**9)
    caplog.set_level("INFO")
    filled(0, 2 * 100, device=torch.device(device))  # 7 kB of frames
    assert ("replay.storage=cuda" in caplog.text) == told
    assert "replay: 0.00 GB of 2.0 GB (200 transitions of 5x7x1)" in caplog.text
    build(World(8, (1, 84, 84), seed=0), 100_000)
    assert "replay: 0.71 GB of 2.0 GB (100000 transitions of 84x84x1)" in caplog.text


@pytest.mark.parametrize("storage", ["ram", "mmap"])
def test_too_large_names_a_capacity_that_fits(storage, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    path = str(tmp_path / "frames.bin") if storage == "mmap" else None
    world, message = World(8, (1, 84, 84), seed=0), r"10+ transitions of 84x84x1 need .* GB is free|set replay.capacity"
    with pytest.raises(MemoryError, match=message) as error:
        build(world, 10**10, storage=storage, path=path)
    fits = int(str(error.value).split("set replay.capacity to ")[1].split()[0])
    build(world, fits, storage=storage, path=path)


@pytest.mark.parametrize(("free", "fits"), [(123_456, 120_000), (1_999, 1_900), (120, 120), (12, 12), (9, 9)])
def test_the_capacity_that_fits_is_rounded_down_to_two_digits(free, fits):
    with pytest.raises(MemoryError, match=f"set replay.capacity to {fits} or less$"):
        check_room(10**6, (1, 1, 1), free, "memory")


def test_a_file_belongs_to_one_replay_until_it_ends(tmp_path):
    path = tmp_path / "frames.bin"
    path.write_text("all of it")
    with pytest.raises(ValueError, match=f"^replay.path={path}: 9 bytes of something else"):
        filled(0, storage="mmap", path=str(path))
    assert path.read_text() == "all of it"
    path.unlink()
    held = filled(0, storage="mmap", path=str(path))
    with pytest.raises(ValueError, match=f"^replay.path={path}: in use by another run"):
        filled(0, storage="mmap", path=str(path))
    del held
    filled(0, storage="mmap", path=str(path))


def test_the_room_of_its_own_old_file_is_free(tmp_path, monkeypatch):
    path, size = tmp_path / "frames.bin", 60 * 7 * 5
    path.write_bytes(bytes(size))
    before = path.stat().st_blocks
    assert before > 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=size * (path.stat().st_blocks < before)))
    filled(0, storage="mmap", path=str(path))


def test_a_mapped_file_has_its_room_before_it_is_used(tmp_path, monkeypatch):
    path, size = tmp_path / "frames.bin", 1000 * 7 * 5
    replay = filled(0, 1000, storage="mmap", path=str(path))
    assert path.stat().st_blocks * 512 >= size
    del replay
    real = os.posix_fallocate
    for error, starts in {errno.ENOSPC: False, errno.EDQUOT: False, errno.EOPNOTSUPP: True}.items():

        def refuse(descriptor, offset, length, error=error):
            real(descriptor, offset, length // 2)
            raise OSError(error, "refused")

        monkeypatch.setattr(os, "posix_fallocate", refuse)
        with nullcontext() if starts else pytest.raises(OSError, match=r"refused, 0.00 GB are needed: .*frames\.bin"):
            filled(0, 1000, storage="mmap", path=str(path))
        assert path.stat().st_size == (size if starts else 0)


@pytest.mark.parametrize(
    ("limit", "free"), [(None, 10**6), ("max", 10**6), ("5000", 3_000), ("9000000", 10**6), ("1000", 0)]
)
def test_memory_is_the_machines_capped_by_the_container(limit, free, tmp_path, monkeypatch):
    monkeypatch.setattr("replay.frames.Path", lambda _: tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**6))
    if limit:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text("2600\n")
        (tmp_path / "memory.stat").write_text("anon 7\nfile 600\ninactive_file 400\nactive_file 200\n")
    assert free_memory() == free


ROWS = {  # first, terminated, truncated, valid
    **{"begin": (1, 0, 0, 1), "run": (0, 0, 0, 1), "die": (0, 1, 0, 1), "cut": (0, 0, 1, 1)},
    **{"last": (0, 0, 0, 0), "wait": (1, 0, 0, 0)},
}


def put(storage, *rows):
    """Write one row of each copy."""
    n = storage.num_envs
    first, terminated, truncated, valid = np.array([ROWS[row] for row in rows], bool).T
    storage.add(np.zeros((n, 1, 5, 7), np.uint8), first, np.zeros(n, int), np.zeros(n), terminated, truncated, valid)


@pytest.mark.parametrize("row", ["begin", "run", "last", "wait"])
@pytest.mark.parametrize(
    ("before", "may_follow"),
    [
        ([], {"begin"}),
        (["begin"], {"run"}),
        (["begin", "die"], {"run", "last"}),
        (["begin", "cut"], {"run", "last"}),
        (["begin", "run", "run", "run"], {"run"}),
        (["begin", "run", "cut", "last"], {"begin", "last", "wait"}),
    ],
)
def test_which_row_may_follow_which(before, may_follow, row):
    storage = FrameStorage(3, 1, (1, 5, 7), Discrete(18))  # the ring wraps
    for name in before:
        put(storage, name)
    refused = pytest.raises(ValueError, match=f"^replay: row {len(before)} of copy 0 breaks the order")
    with nullcontext() if row in may_follow else refused:
        put(storage, row)
    assert storage.written == len(before) + (row in may_follow)


def test_the_copy_that_breaks_the_order_is_named():
    storage = FrameStorage(20, 2, (1, 5, 7), Discrete(18))
    put(storage, "begin", "begin")
    with pytest.raises(ValueError, match="row 1 of copy 1 breaks the order"):
        put(storage, "run", "last")


@pytest.mark.parametrize("count", [11, 40])  # before the ring of 16 rows is full, and long after
def test_episodes_rebuilt_from_flags_are_those_of_rows_added_one_by_one(count):
    rows, copies, rng = 16, 3, np.random.default_rng(count)
    one, flags, over = EpisodeBounds(rows, copies, None), [], np.ones(copies, bool)
    for _ in range(count):  # an episode's last row is not valid, and more such rows may follow
        first = over & (rng.random(copies) < (0.7 if flags else 1))
        valid = first | (~over & (rng.random(copies) < 0.8))
        over = ~valid
        flags.append(first * FIRST | valid * VALID)
    oldest = max(0, count - rows)
    for row in range(oldest, count):
        one.add(row, (flags[row] & FIRST) != 0, (flags[row] & VALID) != 0)
    other = EpisodeBounds(rows, copies, None)
    other.rebuild(oldest, np.array(flags[oldest:]))
    more = np.array([FIRST | VALID, VALID, VALID], np.uint8)
    for bounds in (one, other):  # and they go on in the same way
        bounds.add(count, (more & FIRST) != 0, (more & VALID) != 0)
    slot, copy = np.divmod(np.arange(rows * copies), copies)
    for mine, theirs in zip(one.of(slot, copy), other.of(slot, copy), strict=True):
        np.testing.assert_array_equal(mine, theirs)
