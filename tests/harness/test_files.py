"""Reading and writing beside files of other people: pipes, devices, links, and files that are too large."""

import os
import socket
from pathlib import Path

import pytest

from harness.files import open_regular, read_regular, replacing

KINDS = ("pipe", "device", "link to a device", "socket", "folder")


def make(kind: str, path: Path) -> Path:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            return Path("/dev/zero")
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        case "folder":
            path.mkdir()
    return path


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_opened(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path / "a")
    with pytest.raises(ValueError, match=f"{path} is not a regular file"):
        open_regular(path)


def test_a_file_has_at_most_the_bytes_it_may_have(tmp_path: Path) -> None:
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_bytes(b"12345")
    link.symlink_to(path)
    with open_regular(link, 5) as file:
        assert file.read() == b"12345" == read_regular(path, 5)
    for read in (open_regular, read_regular):
        with pytest.raises(ValueError, match=f"{path} is larger than 4 bytes"):
            read(path, 4)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")


def test_a_file_without_a_size_is_read_to_the_limit_alone() -> None:
    with pytest.raises(ValueError, match="larger"):
        read_regular(Path("/proc/self/smaps"), 100)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "report.json"
    victim.write_text("mine")
    for name in (".report.json.tmp", f".report.json.{os.getpid()}.tmp", "report.json"):
        (tmp_path / name).symlink_to(victim)
    names = set()
    for _ in range(2):
        with replacing(path) as temporary:
            names.add(temporary)
            temporary.write_text("new")
    assert len(names) == 2, "the name can be foreseen"
    assert victim.read_text() == "mine"
    assert path.read_text() == "new"
    assert not path.is_symlink()


def test_what_is_not_finished_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a[*].json"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_by_the_next_writing(tmp_path: Path) -> None:
    path, dead = tmp_path / "a.json", 2**22 + 1  # above the largest process number
    stale = tmp_path / f".a.json.{dead}.0123456789abcdef.tmp"
    others = [tmp_path / f".a.json.{os.getpid()}.0123456789abcdef.tmp", tmp_path / ".a.json.mine.tmp"]
    for file in (stale, *others):
        file.touch()
    with replacing(path):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_new_file_can_be_read_by_those_whom_the_umask_allows(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("")
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "a").stat().st_mode == plain.stat().st_mode
