"""What survives a crash, a full disk, a flipped bit and a forger."""

import hashlib
import json
import logging
import os
import pickle
import resource
import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoint_help import NEW, OLD, files_of, in_child, leftovers, same, steps

from harness import checkpoint
from harness.checkpoint import CheckpointError, holds_checkpoints, load, load_latest, save
from harness.tree import Segment


@pytest.fixture
def two(tmp_path: Path) -> Path:
    save(tmp_path, 1, OLD)
    save(tmp_path, 2, NEW | {"replay": Segment("rows_0_3", np.arange(3))})
    return tmp_path


def test_a_torn_or_missing_file_falls_back_with_a_warning(two: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in files_of(two / "step_000000002"):
        whole = file.read_bytes()
        for length in {0, 1, len(whole) // 2, len(whole) - 1, None}:
            caplog.clear()
            file.unlink() if length is None else file.write_bytes(whole[:length])
            read = load_latest(two)
            assert read.step == 1
            assert same(read.state, OLD)
            assert str(file) in caplog.text
            assert [record.levelno for record in caplog.records] == [logging.WARNING]
        file.write_bytes(whole)
    assert load_latest(two).step == 2


def test_flipped_bytes_never_give_wrong_data(two: Path) -> None:
    new = load_latest(two).state
    for file in files_of(two / "step_000000002"):
        whole = bytearray(file.read_bytes())
        for position in range(0, len(whole), 1 + len(whole) // 80):
            for mask in (1, 1 << position % 7 + 1):
                whole[position] ^= mask
                file.write_bytes(whole)
                read = load_latest(two)
                assert same(read.state, OLD if read.step == 1 else new)
                # Only white space between the fields of the manifest can change without meaning something else.
                assert read.step == 1 or file.name == "manifest.json"
                whole[position] ^= mask
        file.write_bytes(whole)
    manifest = two / "step_000000002" / "manifest.json"
    assert manifest.read_text().count('"step": 2') == 1
    manifest.write_text(manifest.read_text().replace('"step": 2', '"step": 3'))
    assert load_latest(two).step == 1


def test_only_damaged_ones_left_is_an_error(two: Path) -> None:
    for path in two.iterdir():
        (path / "agent.safetensors").write_bytes(b"")
    (two / "step_000000004").mkdir()  # an empty folder is not zero checkpoints
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints is intact"):
        load_latest(two)


@pytest.mark.parametrize("place", ["file", "dangling link", "pipe"])
def test_checkpoints_that_cannot_be_read_are_not_none(tmp_path: Path, place: str) -> None:
    root = tmp_path / "checkpoints"
    match place:
        case "file":
            root.touch()
        case "dangling link":
            root.symlink_to("/mnt/not/mounted")
        case "pipe":
            os.mkfifo(root)
    for read in (holds_checkpoints, load_latest):
        with pytest.raises(CheckpointError, match=str(root)):
            read(root)
    with pytest.raises(CheckpointError, match=str(root)):
        save(root, 1, OLD)


def forbidden(path: Path) -> None:
    """Forbid reading, to a child that gives up being root."""
    path.chmod(0)
    if os.getuid() == 0:
        os.setuid(65534)


@pytest.mark.parametrize("place", ["", "step_000000002", "step_000000002/manifest.json", "step_000000002/agent.json"])
def test_what_may_not_be_read_is_not_skipped(place: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        root = Path(name)
        save(root, 1, OLD)
        save(root, 2, NEW)
        root.chmod(0o755)

        def tried() -> None:
            forbidden(root / place)
            with pytest.raises(CheckpointError, match=str(root / place)):
                load_latest(root)

        assert in_child(tried) == 0


def test_a_checkpoint_on_a_disk_that_is_not_there_is_not_skipped(two: Path) -> None:
    newest = two / "step_000000002"
    newest.rename(two / "elsewhere")
    newest.symlink_to("/mnt/not/mounted")
    with pytest.raises(CheckpointError, match=str(newest)):
        load_latest(two)
    newest.unlink()
    newest.symlink_to(two / "elsewhere")
    assert load_latest(two).step == 2


@pytest.mark.timeout(10)
@pytest.mark.parametrize("file", ["manifest.json", "agent.json", "agent.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "larger", "folder"])
def test_only_files_of_their_size_are_read(
    two: Path, file: str, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = two / "step_000000002" / file
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "larger":
            with path.open("wb") as sparse:
                sparse.truncate(1 << 40)
        case "folder":
            path.mkdir()
    assert load_latest(two).step == 1
    assert str(path) in caplog.text


def test_a_damaged_file_that_checkpoints_share_is_told_of(tmp_path: Path) -> None:
    segment = Segment("rows_0_3", np.arange(3))
    paths = [save(tmp_path, step, {"replay": [segment, step]}) for step in (1, 2)]
    files = [path / "segments" / "rows_0_3.safetensors" for path in paths]
    assert files[0].samefile(files[1])
    content = bytearray(files[0].read_bytes())
    content[-1] ^= 1
    files[0].write_bytes(content)
    with pytest.raises(CheckpointError, match="share"):
        load_latest(tmp_path)


# --- crashes and full disks ---


@pytest.mark.parametrize("step", [1, 2], ids=["same step", "next step"])
def test_a_crash_at_any_call_leaves_the_old_or_the_new(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "KEEP", 1)
    segment = Segment("rows_0_3", np.arange(3))
    old, new = {"replay": [segment, 1]}, {"replay": [segment, 2]}
    seen = []

    def crash_before_call(root: Path, k: int) -> None:
        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                nonlocal k
                k -= 1
                if k < 0:
                    os._exit(77)
                return call(*args, **kwargs)

            return wrapper

        for name in ("open", "fsync", "replace", "link", "unlink", "rmdir", "mkdir"):
            setattr(os, name, counted(getattr(os, name)))
        save(root, step, new)

    for k in range(100):
        root = tmp_path / str(k)
        save(root, 1, old)
        status = in_child(lambda: crash_before_call(root, k))  # noqa: B023 — runs at once
        assert status in (0, 77)
        read = load_latest(root)
        assert same(read.state, old) or same(read.state, new)
        seen.append(same(read.state, new))
        save(root, 3, new)
        assert steps(root) == ["step_000000003"]
        assert leftovers(root) == []
        shutil.rmtree(root)
        if status == 0:
            break
    assert status == 0
    assert seen == sorted(seen)
    assert seen.count(False) > 10
    assert seen.count(True) > 5


def test_everything_is_synced_before_the_name_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    path = save(tmp_path, 1, NEW | {"replay": Segment("rows_0_3", np.arange(3))})
    before, after = events[: events.index("replace")], events[events.index("replace") + 1 :]
    temporary = tmp_path / f".tmp-{os.getpid()}-{path.name}"
    files = [str(temporary / file.relative_to(path)) for file in files_of(path)]
    assert sorted(before) == sorted([*files, str(temporary), str(temporary / "segments")])
    assert before[-2:] == [str(temporary / "manifest.json"), str(temporary)]
    assert after == [str(tmp_path)]


def test_a_file_size_limit_keeps_the_old(tmp_path: Path) -> None:
    save(tmp_path, 1, OLD)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 2: File too large; 210,\d+ bytes needed, "):
            save(tmp_path, 2, OLD | {"replay": np.ones(200_000, np.uint8)})

    assert in_child(limited) == 0
    assert same(load_latest(tmp_path).state, OLD)
    assert os.listdir(tmp_path) == ["step_000000001"]


def test_a_full_disk_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, 1, OLD)
    with pytest.raises(CheckpointError, match="Not a directory"):
        save(path / "agent.safetensors" / "run", 1, OLD)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_040_000))
    monkeypatch.setattr(checkpoint, "write_parts", lambda *_: pytest.fail("wrote"))
    with pytest.raises(CheckpointError, match=r"No space left on device; 1,05\d,\d+ bytes needed, 1,040,000 free"):
        save(tmp_path, 2, {"replay": np.ones(1_000_000, np.uint8)})
    assert os.listdir(tmp_path) == [path.name]


# --- malice ---


def forge(path: Path, files: dict[str, bytes], change: dict[str, Any] = {}) -> None:  # noqa: B006
    """Replace files, listed or not, change fields of the manifest, and sign it anew."""
    body = json.loads((path / "manifest.json").read_text())["manifest"]
    for file, content in files.items():
        (path / file).write_bytes(content)
        body["files"][file] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    sign(path, body | change)


def sign(path: Path, body: Any) -> None:
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps({"manifest": body, "sha256": digest}))


class Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", ["agent.safetensors", "counters.json"])
def test_a_pickle_is_refused_and_not_run(tmp_path: Path, file: str) -> None:
    path = save(tmp_path / "run", 1, OLD)
    canary = tmp_path / "canary"
    code = pickle.dumps(Canary(canary))
    forge(path, {file: code})
    with pytest.raises(CheckpointError, match=f"entry '{Path(file).stem}'"):
        load(path)
    assert not canary.exists()
    pickle.loads(code)
    assert canary.exists()  # the bait was live


def huge(*offsets: int) -> bytes:
    header = json.dumps({"0": {"dtype": "F32", "shape": [1 << 40], "data_offsets": offsets}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


STRUCTURES = [
    b"[" * 100_000, b"\xff", b'["code", "1"]', b'["tensor", "9"]', b'["tensor", []]', b'["dict", [[[], 1]]]',
    b'["list"]', b'["scalar", "x"]', b'["segment", []]', b'["float", "x"]', b'["list", 3]',
]  # fmt: skip
MANIFESTS = [
    *[
        {"format": 2},
        {"files": []},
        {"files": ["agent.json"]},
        {"entries": 3},
        {"step": "1"},
        {"step": float("inf")},
        {"step": -1},
    ]
]


@pytest.mark.parametrize(
    ("files", "change", "message"),
    [
        ({"agent.safetensors": huge(0, 4 << 40)}, {}, "SafetensorError"),
        ({"agent.safetensors": huge(0, 8)}, {}, "SafetensorError"),
        ({"agent.safetensors": struct.pack("<Q", 1 << 62) + huge(0, 8)[8:-8]}, {}, "SafetensorError"),
        *(({"agent.json": structure}, {}, "entry 'agent'") for structure in STRUCTURES),
        *(({}, change, "step_000000001") for change in MANIFESTS),
    ],
)
def test_what_is_malformed_is_refused(
    tmp_path: Path, files: dict[str, bytes], change: dict[str, Any], message: str
) -> None:
    path = save(tmp_path, 1, OLD)
    forge(path, files, change)
    with pytest.raises(CheckpointError, match=message):
        load(path)


@pytest.mark.parametrize("outside", ["../../secret.json", "segments/../../../secret.json", "ABSOLUTE", "a\0.json"])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, outside: str) -> None:
    path = save(tmp_path / "run", 1, OLD)
    secret = tmp_path / "secret.json"
    secret.write_text('"secret"')
    outside = outside.replace("ABSOLUTE", str(secret))
    record = {"size": 8, "sha256": hashlib.sha256(secret.read_bytes()).hexdigest()}
    body = json.loads((path / "manifest.json").read_text())["manifest"]
    body["files"][outside] = record
    body["entries"] = {outside.removesuffix(".json"): []}
    sign(path, body)
    with pytest.raises(CheckpointError, match="is not a file name of a checkpoint"):
        load(path)


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "run", 1, OLD)
    file = path / "counters.json"
    target = "../../".ljust(file.stat().st_size, "x")  # a link is as long as its target: only its kind differs
    file.rename(path / target)
    file.symlink_to(target)
    with pytest.raises(CheckpointError, match=r"counters\.json is not a file"):
        load(path)
