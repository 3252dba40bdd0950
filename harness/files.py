"""Safe file access: reading never blocks and is bounded; writing is atomic and never follows a link."""

import errno
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def open_regular(path: Path, limit: int | None = None) -> BufferedReader:
    """Open a regular file for reading; a link to one counts as one.

    Args:
        path: of a file that may be somebody else's.
        limit: bytes that the file may have at most.

    Raises:
        ValueError: it is a folder, a pipe, a device or a socket, or longer than `limit`; one line that names the path.
        OSError: it is missing or cannot be read.
    """
    _check_regular(path, path.stat().st_mode)  # before opening: a device may act on being opened
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115 — returned
    try:
        status = os.fstat(file.fileno())
        _check_regular(path, status.st_mode)
        _check_size(path, status.st_size, limit)
    except ValueError:
        file.close()
        raise
    return file


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        ValueError, OSError: as `open_regular`.
    """
    with open_regular(path, limit) as file:
        content = file.read(limit + 1) or b""  # a file of /proc has no size
    _check_size(path, len(content), limit)
    return content


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, or one that follows from the files in a folder, in hexadecimal."""
    if path.is_file():
        return sha256(path)
    return hashlib.sha256(
        "".join(sha256(file) for file in sorted(path.iterdir()) if file.is_file()).encode()
    ).hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which replaces it when the block ends, or is removed when the block fails.

    Its name is random, so that no link placed there is followed; a link at `path` itself is replaced. The content is
    synced to the disk before the file is renamed.
    """
    _remove_stale(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield temporary
        os.fsync(descriptor)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def write_png(image: "NDArray[np.uint8]", path: Path) -> None:
    """Write an image (H, W, 3) atomically."""
    from PIL import Image  # here, since composing a command line does without it

    with replacing(path) as temporary:
        Image.fromarray(image).save(temporary, "png")


def check_writable(path: Path) -> None:
    """Make the folder of `path`, and check that a file can be written there.

    Raises:
        OSError: it cannot; the message names the path.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        reason = f"{path.parent} is a file" if isinstance(error, FileExistsError) else error.strerror
        raise type(error)(f"{path} cannot be written: {reason}") from error


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without it
            raise
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Remove the temporary files of `path` that killed processes left."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.[0-9a-f]{{16}}\.tmp")
    for stale in path.parent.iterdir():
        if (match := pattern.fullmatch(stale.name)) and not psutil.pid_exists(int(match[1])):
            stale.unlink(missing_ok=True)


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is not a regular file")


def _check_size(path: Path, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise ValueError(f"{path} is larger than {limit:,} bytes, the most that is read of such a file")
