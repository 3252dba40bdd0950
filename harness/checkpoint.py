"""Checkpoints that survive crashes, full disks and bit rot, and whose reading never executes code.

    root/step_000000123/manifest.json            format, step, entries, size and sha256 of every file; written last
                        agent.json               the shape of the tree `state["agent"]`
                        agent.safetensors        its arrays
                        segments/rows_0_4096.safetensors     immutable arrays, hard-linked between checkpoints

A folder with its final name is a complete checkpoint: it is written and fsynced under `.tmp-<pid>-…`, then renamed.
"""

import errno
import hashlib
import json
import logging
import operator
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.files import read_regular, sha256, sync_folder
from harness.safetensors_stream import Record, file_size, write_arrays, write_parts
from harness.tree import NAME, Array, Tree, check_name, decode, encode

log = logging.getLogger(__name__)

KEEP = 2  # checkpoints of a run, the newest
_FORMAT = 1
_LARGEST = 1 << 26  # bytes of JSON; a run writes a thousandth of it
_STEP = re.compile(r"step_(\d{9,})(\.old)?")
_FILE = re.compile(rf"(segments/)?{NAME.pattern}\.(json|safetensors)")

# root -> {segment file: sha256} of the checkpoint that this process last wrote or read there. A segment is linked
# only if it is listed: a run resumed further back may compute other bytes under a name that is still on the disk.
_own_segments: dict[Path, dict[str, str]] = {}


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or does not verify."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. Arrays are private memory maps: they can be written, which never changes the file."""

    step: int
    path: Path
    state: dict[str, Tree]

    @contextmanager
    def restoring(self) -> Iterator[dict[str, Tree]]:
        """The state, for a block that restores it.

        Raises:
            CheckpointError: the state does not fit what the block restores; one line that names the folder.
        """
        try:
            yield self.state
        except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            what = str(error) if isinstance(error, ValueError) else repr(error)
            raise CheckpointError(f"{self.path} does not fit this run: {what}") from error


def save(root: Path, step: int, state: Mapping[str, Tree]) -> Path:
    """Write `state` to `root/step_<step>` atomically, then remove all but the `KEEP` newest checkpoints.

    A checkpoint of the same step is replaced; those of later steps belong to an abandoned run and are removed.
    A `Segment` that the newest earlier checkpoint already holds is hard-linked, not written.

    Args:
        root: folder of the checkpoints of one run, made if missing. Only one process may write there at a time.
        step: >= 0; orders the checkpoints.
        state: trees (see `encode`) by name; each name becomes a file name.

    Returns:
        The folder of the new checkpoint.

    Raises:
        CheckpointError: the disk is full or cannot be written; earlier checkpoints are as they were.
        TypeError, ValueError: something in `state` cannot be stored; nothing was written.
    """
    if step < 0:
        raise ValueError(f"step is {step}, must be >= 0")
    plan = _Plan()
    for name, tree in state.items():
        plan.add(name, tree)
    links = _linkable(root, step, plan)
    new = sum(map(len, plan.texts.values())) + sum(file_size(plan.arrays[file]) for file in plan.arrays.keys() - links)
    need = int(1.05 * new)
    temporary = root / f".tmp-{os.getpid()}-{_folder(step)}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        if _free(root) < need:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        files = _write_folder(temporary, step, plan, links)
        final = _publish(temporary, root, step)
    except OSError as error:
        raise CheckpointError(
            f"{root}: no checkpoint of step {step}: {error.strerror}; {need:,} bytes needed, {_free(root):,} free"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _own_segments[root.resolve()] = {file: files[file]["sha256"] for file in files if "/" in file}
    _prune(root, step)
    return final


@contextmanager
def warning_if_unsaved(step: int) -> Iterator[None]:
    """Turn an error of the disk in the block into a warning that `step` has no checkpoint; the previous one stays."""
    try:
        yield
    except (CheckpointError, OSError) as error:
        log.warning("no checkpoint at step %d: %s", step, error)


def holds_checkpoints(root: Path) -> bool:
    """Whether there are checkpoints, damaged or not.

    Raises:
        CheckpointError: the folder, or what it links to, cannot be read.
    """
    return bool(_found(root))


def load_latest(root: Path) -> Checkpoint | None:
    """Read the newest checkpoint that verifies; warns for each newer one that does not.

    Args:
        root: folder that `save` wrote to.

    Returns:
        The checkpoint, or None if `root` holds none at all, damaged or not.

    Raises:
        CheckpointError: there are checkpoints but none verifies, or one cannot be read; see `holds_checkpoints`.
    """
    found = _found(root)
    for _, path in found:
        try:
            return load(path)
        except CheckpointError as error:
            if isinstance(error.__cause__, PermissionError) or not path.is_dir():  # it may be undamaged
                raise
            log.warning("checkpoint skipped: %s", error)
    if found:
        raise CheckpointError(
            f"{root}: none of the {len(found)} checkpoints is intact, as when a file that they share is damaged; move "
            "them away to start over"
        )
    return None


def load(path: Path) -> Checkpoint:
    """Read one checkpoint folder. Sizes and hashes are verified before anything is parsed.

    Raises:
        CheckpointError: a file is missing, damaged or malformed; the message names it.
    """
    manifest = _read_manifest(path)
    state = {name: _read_entry(path, name, manifest) for name in manifest.entries}
    segments = {f"{key}.safetensors" for keys in manifest.entries.values() for key in keys}
    _own_segments[path.parent.resolve()] = {file: manifest.files[file]["sha256"] for file in segments}
    return Checkpoint(manifest.step, path, state)


@dataclass(frozen=True)
class _Manifest:
    step: int
    entries: dict[str, list[str]]  # entry name -> keys of its segments, `segments/<name>`
    files: dict[str, Record]


def _folder(step: int) -> str:
    return f"step_{step:09d}"


def _found(root: Path) -> list[tuple[int, Path]]:
    """(step, folder), newest first. A folder set aside while its step was replaced comes after its replacement."""
    try:
        names = os.listdir(root)
    except FileNotFoundError as error:
        if root.is_symlink():
            raise CheckpointError(f"{root} is a link to {os.readlink(root)}, which is not there: mount it?") from error
        return []
    except OSError as error:
        raise CheckpointError(f"{root} cannot be read: {error.strerror}") from error
    matches = [(match, root / name) for name in names if (match := _STEP.fullmatch(name))]
    return [(int(match[1]), path) for match, path in sorted(matches, key=lambda m: (-int(m[0][1]), m[1].name))]


# --- writing ---


@dataclass
class _Plan:
    """The content of each file of a checkpoint."""

    texts: dict[str, bytes] = field(default_factory=dict)
    arrays: dict[str, dict[str, Array]] = field(default_factory=dict)
    entries: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, tree: Tree) -> None:
        check_name(name)
        structure, arrays = encode(tree)
        self.entries[name] = [key for key in arrays if key.startswith("segments/")]
        for key in self.entries[name]:
            self.arrays[f"{key}.safetensors"] = {"array": arrays.pop(key)}
        self.texts[f"{name}.json"] = json.dumps(structure, allow_nan=False).encode()
        self.arrays[f"{name}.safetensors"] = arrays


def _linkable(root: Path, step: int, plan: _Plan) -> dict[str, tuple[Path, Record]]:
    """The file to link and its record, for each segment that the newest checkpoint up to `step` already holds."""
    own = _own_segments.get(root.resolve(), {})
    for _, folder in (found for found in _found(root) if found[0] <= step):
        try:
            files = _read_manifest(folder).files
        except CheckpointError:
            continue
        return {
            file: (folder / file, files[file])
            for file, arrays in plan.arrays.items()
            if file in own and files.get(file) == {"size": file_size(arrays), "sha256": own[file]}
        }
    return {}


def _link(source: Path, record: Record, path: Path) -> Record | None:
    """Hard-link a file; None if the file system cannot, and the file has to be written."""
    try:
        if source.lstat().st_size == record["size"]:
            os.link(source, path)
            return record
    except OSError as error:
        log.debug("%s is written, not linked: %s", path, error)
    return None


def _write_folder(folder: Path, step: int, plan: _Plan, links: Mapping[str, tuple[Path, Record]]) -> dict[str, Record]:
    """Write every file, the manifest last, and sync all of them to the disk."""
    folder.mkdir()  # fails where there is anything, a link too
    (folder / "segments").mkdir()
    files = {file: write_parts(folder / file, [text]) for file, text in plan.texts.items()}
    for file, arrays in plan.arrays.items():
        linked = _link(*links[file], folder / file) if file in links else None
        files[file] = linked or write_arrays(folder / file, arrays)
    sync_folder(folder / "segments")
    body = {"format": _FORMAT, "step": step, "entries": plan.entries, "files": files}
    write_parts(folder / "manifest.json", [json.dumps({"manifest": body, "sha256": _digest(body)}, indent=1).encode()])
    sync_folder(folder)
    return files


def _digest(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _publish(temporary: Path, root: Path, step: int) -> Path:
    """Rename the complete folder. At every instant the old or the new checkpoint of `step` can be found."""
    final = root / _folder(step)
    if final.exists():
        old = final.with_name(f"{final.name}.old")
        if old.exists():
            shutil.rmtree(old)
        os.replace(final, old)
    os.replace(temporary, final)
    sync_folder(root)
    return final


def _prune(root: Path, step: int) -> None:
    kept: set[int] = set()
    for found, path in _found(root):
        if found <= step and found not in kept and len(kept) < KEEP:
            kept.add(found)
            continue
        if found > step:
            log.warning("%s removed: the run now continues from step %d", path, step)
        try:
            shutil.rmtree(path)
        except OSError as error:  # the new checkpoint is safe; the next save tries again
            log.warning("%s could not be removed: %s", path, error)


def _remove_stale(root: Path) -> None:
    """Remove half-written folders of dead processes, and of earlier saves of this one."""
    for path in root.glob(".tmp-*"):
        pid = path.name.split("-")[1]
        if pid == str(os.getpid()) or (pid.isdigit() and not psutil.pid_exists(int(pid))):
            shutil.rmtree(path, ignore_errors=True)


def _free(root: Path) -> int:
    return shutil.disk_usage(next(path for path in (root, *root.absolute().parents) if path.exists())).free


# --- reading ---


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / "manifest.json"
    try:
        text = json.loads(read_regular(path, _LARGEST))
        body = text["manifest"]
        if text["sha256"] != _digest(body):
            raise ValueError("its sha256 does not match")
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']!r}, this version reads {_FORMAT}")
        for file in body["files"]:
            if not _FILE.fullmatch(file):
                raise ValueError(f"{file!r} is not a file name of a checkpoint")
        if (step := operator.index(body["step"])) < 0:
            raise ValueError(f"step {step}")
        return _Manifest(step, dict(body["entries"]), dict(body["files"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: {type(error).__name__}: {error}") from error


def _verified(folder: Path, file: str, manifest: _Manifest) -> Path:
    """The path of a file, after checking that it is regular and has the size and hash in the manifest."""
    path, record = folder / file, manifest.files[file]
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size != record["size"]:
        raise CheckpointError(f"{path} is not a file of {record['size']:,} bytes: it has {status.st_size:,}")
    if sha256(path) != record["sha256"]:
        raise CheckpointError(f"{path} does not match the sha256 in its manifest")
    return path


def _read_arrays(folder: Path, file: str, manifest: _Manifest) -> dict[str, Tensor]:
    """Memory maps; the library checks dtypes, shapes and offsets against the size of the file."""
    with safe_open(_verified(folder, file, manifest), framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 — not iterable


def _read_entry(folder: Path, name: str, manifest: _Manifest) -> Tree:
    try:
        arrays = _read_arrays(folder, f"{name}.safetensors", manifest)
        for key in manifest.entries[name]:
            arrays[key] = _read_arrays(folder, f"{key}.safetensors", manifest)["array"]
        return decode(json.loads(read_regular(_verified(folder, f"{name}.json", manifest), _LARGEST)), arrays)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{folder}, entry {name!r}: {type(error).__name__}: {error}") from error
