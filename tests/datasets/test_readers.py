"""Files become episodes: each kind read back against what was written."""

import gzip
import io
import json
import os
import struct
import sys
import tracemalloc
import types
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from gymnasium.spaces import Box
from PIL import Image, ImageDraw, ImageFilter
from video_help import write_video

import datasets.readers as module
from datasets import faces
from datasets.readers import read_idx, read_images, read_multiview, read_recording, read_storage, read_videos
from replay.storage import FrameStorage

SHAPE = (1, 2, 3)


def image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def plain(colour: tuple[int, int, int], height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


huge_images = partial(read_images, size=2_000_000)
images, videos = partial(read_images, size=4), partial(read_videos, size=8, stride=1, cut=40)


# --- images ---


def test_images_are_labelled_by_their_folders(tmp_path: Path) -> None:
    names = ["dog/b/1.png", "cat/b/x.JPG", "cat/a/2.png", "cat/a/10.png"]
    for i, name in enumerate(names):
        image(tmp_path / name, plain((50 * i, 0, 0)))
    (tmp_path / "dog/b/notes.txt").write_text("no image")
    episodes = read_images(tmp_path, 4)
    assert episodes.frames.shape == (4, 3, 4, 4)
    assert episodes.frames[:, 0, 0, 0].tolist() == pytest.approx([150, 100, 50, 0], abs=2)  # by path
    assert {name: label.tolist() for name, label in episodes.labels.items()} == {
        "class": ["cat", "cat", "cat", "dog"],
        "group": ["a", "a", "b", "b"],
    }
    assert (episodes.end - episodes.begin == 1).all()
    for seed in range(4):
        train, test = episodes.split(0.5, seed)
        assert {tuple(train.rows()), tuple(test.rows())} == {(0, 1), (2, 3)}


def test_an_image_is_cut_to_its_middle_square_resized_and_turned_upright(tmp_path: Path) -> None:
    wide = plain((0, 0, 0), 6, 18)
    wide[:, 6:12] = 200
    wide[:3, 6:12] = (200, 0, 0)
    image(tmp_path / "a.png", wide)
    picture = Image.fromarray(np.rot90(wide, -1).copy())
    exif = picture.getexif()
    exif[0x0112] = 8  # to be shown turned back by a quarter
    picture.save(tmp_path / "b.png", exif=exif)
    Image.fromarray(np.full((5, 5), 70, np.uint8)).save(tmp_path / "c.png")
    upright, turned, gray = read_images(tmp_path, 2).frames
    wanted = np.array([[[200, 200], [200, 200]], [[0, 0], [200, 200]], [[0, 0], [200, 200]]])
    assert np.abs(upright - wanted).max() < 40  # a smooth filter
    np.testing.assert_array_equal(turned, upright)
    assert (gray == 70).all()
    assert read_images(tmp_path, 2).labels == {}


def test_a_new_image_is_dealt_without_moving_the_others(tmp_path: Path) -> None:
    for i in range(60):
        image(tmp_path / f"b/{i:02d}.png", plain((i, 0, 0)))
    before = set(read_images(tmp_path, 4).split(0.2, 3)[1].names)
    image(tmp_path / "a/000.png", plain((200, 0, 0)))
    (tmp_path / ".ipynb_checkpoints").mkdir()
    image(tmp_path / ".ipynb_checkpoints/1.png", plain((200, 0, 0)))
    after = read_images(tmp_path, 4)
    assert set(after.labels["class"]) == {"a", "b"}
    assert set(after.split(0.2, 3)[1].names) - {"a/000.png"} == before


# --- videos ---


def test_shots_and_files_are_episodes_and_files_are_groups(tmp_path: Path) -> None:
    red, blue = plain((220, 0, 0), 16, 16), plain((0, 0, 220), 16, 16)
    write_video(tmp_path / "a.mp4", [red] * 5 + [blue] * 4)
    write_video(tmp_path / "sub/b.mp4", [blue] * 3)
    write_video(tmp_path / ".half.mp4", [blue])
    for stride, begin, end in [(1, [0, 5, 9], [5, 9, 12]), (2, [0, 3, 5], [3, 5, 7])]:
        episodes = read_videos(tmp_path, 8, stride, cut=40)
        assert (episodes.begin.tolist(), episodes.end.tolist()) == (begin, end)
        assert episodes.frames.shape == (end[-1], 3, 8, 8)
        colours = episodes.frames.mean((2, 3)).argmax(1)
        assert [set(colours[b:e]) for b, e in zip(begin, end, strict=True)] == [{0}, {2}, {2}]
        assert episodes.labels["group"].tolist() == [0] * end[1] + [1] * (end[2] - end[1])
        assert episodes.names.tolist() == ["a.mp4", "a.mp4", "sub/b.mp4"]
    assert len(read_videos(tmp_path, 8, 1, cut=255).begin) == 2
    assert videos(tmp_path / "sub").labels == {}


@pytest.mark.parametrize("name", ["{}/{}.mp4", "{}/{}/1.mp4"])
def test_folders_name_class_and_group_of_videos(tmp_path: Path, name: str) -> None:
    places = [("fake", "ann"), ("fake", "bob"), ("real", "ann")]
    for i, place in enumerate(places):
        write_video(tmp_path / name.format(*place), [plain((20 * i + 5, 0, 0), 16, 16)] * (i + 1))
    episodes = videos(tmp_path)
    assert {key: label.tolist() for key, label in episodes.labels.items()} == {
        "class": ["fake"] * 3 + ["real"] * 3,
        "group": ["ann", "bob", "bob", "ann", "ann", "ann"],
    }
    for seed in range(4):  # ann's real and fake videos show the same
        train, test = episodes.split(0.5, seed)
        assert {tuple(train.rows()), tuple(test.rows())} == {(1, 2), (0, 3, 4, 5)}


# --- faces ---


def face(side: int, place: tuple[int, int], width: int = 400, height: int = 240) -> np.ndarray:
    """A drawn face of `side` pixels on gray."""
    picture = Image.new("RGB", (width, height), (90, 90, 90))

    def draw(shape: str, colour: tuple[int, int, int], *corners: int) -> None:
        at = [place[i % 2] + side * corner // 100 for i, corner in enumerate(corners)]
        getattr(ImageDraw.Draw(picture), shape)(at, fill=colour)

    draw("ellipse", (60, 40, 30), 10, -5, 90, 110)
    draw("ellipse", (220, 190, 170), 15, 5, 85, 105)
    for x in (22, 58):
        draw("rectangle", (70, 50, 40), x, 30, x + 20, 35)
        draw("ellipse", (90, 70, 60), x, 36, x + 20, 50)
        draw("ellipse", (20, 20, 20), x + 6, 38, x + 14, 48)
    draw("polygon", (235, 210, 190), 50, 40, 42, 68, 58, 68)
    draw("ellipse", (150, 110, 100), 42, 66, 58, 72)
    draw("ellipse", (130, 60, 60), 33, 78, 67, 88)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(side / 60)))


needs_cascades = pytest.mark.skipif(not hasattr(cv2, "CascadeClassifier"), reason="OpenCV 5 has no cascades")


@needs_cascades
def test_the_largest_face_is_cut_out_of_images_and_videos_wherever_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = np.maximum(face(100, (280, 100)), face(60, (10, 20)))  # the large one lies beside the middle square
    image(tmp_path / "images/a/1.png", both)
    image(tmp_path / "images/b/2.png", plain((90, 90, 90), 240, 400))
    caplog.set_level("INFO")
    episodes = read_images(tmp_path / "images", 32, "face")
    assert episodes.labels["class"].tolist() == ["a"]
    assert episodes.names.tolist() == ["a/1.png"]
    assert "1 of 2 pictures left out, which show no face" in caplog.text
    assert episodes.frames[0, :, 11:21, 11:21].mean((1, 2)) == pytest.approx([200, 170, 150], abs=40)  # skin
    image(tmp_path / "large/1.png", face(100, (280, 100)))
    alone = read_images(tmp_path / "large", 32, "face")
    assert np.abs(alone.frames.astype(int) - episodes.frames).mean() < 12

    nothing = plain((90, 90, 90), 240, 400)
    write_video(tmp_path / "videos/a.mp4", [both, both, nothing, both])
    film = read_videos(tmp_path / "videos", 32, 1, 255, "face")
    assert (film.begin.tolist(), film.end.tolist()) == ([0, 2], [2, 3])
    assert np.abs(film.frames[2].astype(int) - episodes.frames[0]).mean() < 12
    image(tmp_path / "none/1.png", nothing)
    with pytest.raises(ValueError, match="none: no face in any of 1 pictures"):
        read_images(tmp_path / "none", 32, "face")


def test_without_cascades_a_face_crop_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "1.png", plain((0, 0, 0)))
    for found in (None, types.ModuleType("cv2")):  # not there, or version 5
        monkeypatch.setitem(sys.modules, "cv2", found)
        faces._opencv.cache_clear()
        with pytest.raises(ValueError, match="needs OpenCV 4: pip install"):
            read_images(tmp_path, 8, "face")


# --- several cameras ---


def write_views(folder: Path, lengths: dict[str, int]) -> None:
    """Videos by name, whose frames get brighter by 20; each begins at another brightness."""
    for start, (name, length) in enumerate(lengths.items()):
        write_video(folder / name, [plain((20 * t + 5 * start,) * 3, 16, 16) for t in range(length)])


@pytest.mark.parametrize(("stride", "ends"), [(1, [4, 9]), (2, [2, 5])])
def test_videos_of_a_sequence_are_views_of_the_same_moments(tmp_path: Path, stride: int, ends: list[int]) -> None:
    write_views(tmp_path, {"b/1.mp4": 5, "b/2.mp4": 5, "b/3.mp4": 5, "a/1.mp4": 4, "a/2.mp4": 4, "a/3.mp4": 4})
    episodes = read_multiview(tmp_path, 8, stride)
    assert (episodes.begin.tolist(), episodes.end.tolist()) == ([0, ends[0]], ends)
    assert episodes.names is not None
    assert episodes.names.tolist() == ["a", "b"]
    assert episodes.views is not None
    assert episodes.views.shape == (ends[1], 3, 3, 8, 8)
    np.testing.assert_array_equal(episodes.views[:, 0], episodes.frames)
    seen = episodes.views.mean((2, 3, 4))
    times = np.concatenate([np.arange(0, 4, stride), np.arange(0, 5, stride)])
    start = np.repeat([15, 0], [ends[0], ends[1] - ends[0]])[:, None] + [0, 5, 10]
    np.testing.assert_allclose(seen, 20 * times[:, None] + start, atol=4)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"a/1.mp4": 4, "a/2.mp4": 3}, r"a: its videos differ in length \(1.mp4 4, 2.mp4 3 frames\): cut them"),
        ({"a/1.mp4": 2, "a/2.mp4": 2, "b/1.mp4": 2}, "b has the cameras 1, the first sequence 1, 2"),
        ({"1.mp4": 2, "2.mp4": 2}, "must be folder/sequence/camera.mp4"),
        ({"a/1.mp4": 2}, "of two cameras or more"),
    ],
)
def test_views_that_do_not_belong_together_are_one_line(tmp_path: Path, lengths: dict[str, int], message: str) -> None:
    write_views(tmp_path, lengths)
    with pytest.raises(ValueError, match=message):
        read_multiview(tmp_path, 8, 1)


@pytest.mark.parametrize(("read", "what"), [(images, "2 images of 4x4x3"), (videos, "5 frames of 8x8x3")])
def test_what_does_not_fit_in_memory_is_refused_before_it_is_read(
    tmp_path: Path, read: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", [plain((0, 0, 0), 16, 16)] * 5)
    for name in ("1.png", "2.png"):
        image(tmp_path / name, plain((0, 0, 0)))
    monkeypatch.setattr(module, "free_memory", lambda: 90)
    for decode in ("read_image", "read_video"):
        monkeypatch.setattr(module, decode, None)
    with pytest.raises(MemoryError, match=f"source: {what} need .* lower source.size"):
        read(tmp_path)


# --- IDX ---


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, packed: bool = False) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(256, size=(9, 4, 5), dtype=np.uint8)
    for name, part in {"train": slice(0, 6), "t10k": slice(6, 9)}.items():
        for kind, values in (("images-idx3", pixels[part]), ("labels-idx1", np.arange(9)[part] % 4)):
            path = folder / f"{name}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return pixels


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_keep_their_official_test_images(tmp_path: Path, packed: bool) -> None:
    pixels = write_idx(tmp_path, packed)
    episodes = read_idx(tmp_path)
    np.testing.assert_array_equal(episodes.frames, pixels[:, None])
    assert episodes.labels["class"].tolist() == [*"012301230"]
    train, test = episodes.split(0.9, 0)
    assert (train.rows().tolist(), test.rows().tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7, 8])


PNG = io.BytesIO()
Image.new("RGB", (8, 8)).save(PNG, "PNG")
PIXELS, LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("read", "files", "message"),
    [
        (images, {}, r"has no files with one of the endings .* \.png"),
        (images, {"cat/1.png": PNG.getvalue(), "2.png": PNG.getvalue()}, "must all lie in folder/, in folder/class/ "),
        (huge_images, {"1.png": PNG.getvalue()}, "1 images of .* of memory is free: lower source.size"),
        (images, {"cat/1.png": PNG.getvalue()[:40]}, "cat/1.png is not a readable image"),
        (videos, {"a.mp4": b"no video"}, "a.mp4 is not a readable video"),
        (read_idx, {PIXELS: None}, f"has no {PIXELS} .* `make mnist`"),
        (
            read_idx,
            {LABELS: idx(np.zeros(3))[:-1]},
            f"{LABELS} cannot be read: it is torn: .* 3 bytes, and there are 2",
        ),
        (read_idx, {LABELS: idx(np.zeros(2))}, "t10k has 3 images, but 2 labels"),
        (read_idx, {PIXELS: idx(np.zeros((6, 4)))}, "not an IDX file of 3 dimensions"),
        (read_idx, {PIXELS: b""}, "not an IDX file"),
        (read_idx, {PIXELS: None, f"{PIXELS}.gz": gzip.compress(b"1234567")[:-3]}, "ubyte.gz cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, read: Any, files: dict[str, bytes | None], message: str) -> None:
    if read is read_idx:
        write_idx(tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, MemoryError), match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ((0, 0, 8, 3, 6, 4, 5), "announces 120 bytes, and there are more"),
        ((0, 0, 8, 1, 6, 4, 5), "not an IDX file of 3 dimensions"),
        ((0, 0, 8, 3, 1 << 20, 1 << 20, 5), "GB of memory"),
    ],
)
def test_a_bomb_is_not_inflated(tmp_path: Path, header: tuple[int, ...], message: str) -> None:
    write_idx(tmp_path)
    (tmp_path / PIXELS).unlink()
    zeros = zlib.compressobj(wbits=31)
    with (tmp_path / f"{PIXELS}.gz").open("wb") as file:
        file.write(zeros.compress(struct.pack(">4B3I", *header)))
        for _ in range(40):
            file.write(zeros.compress(bytes(1 << 20)))
        file.write(zeros.flush())
    tracemalloc.start()
    with pytest.raises((ValueError, MemoryError), match=rf"{PIXELS}\.gz.* {message}"):
        read_idx(tmp_path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 22


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize(
    ("read", "name"),
    [
        (images, "a.png"),
        (videos, "a.mp4"),
        (read_idx, PIXELS),
        (read_recording, "frames.npy"),
        (read_recording, "source.json"),
    ],
)
def test_only_regular_files_are_opened(tmp_path: Path, make: Any, read: Any, name: str) -> None:
    write_recording(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    with pytest.raises(ValueError, match="not a regular file"):
        read(tmp_path)


# --- recordings ---


def write_recording(folder: Path, **changes: Any) -> None:
    columns = {"frames": np.zeros((4, *SHAPE), np.uint8), "begin": np.array([0, 3]), "end": np.array([3, 4])}
    columns |= {"action": np.array([0, 1, 2, 1]), "reward": np.ones(4, np.float32), "labels/x": np.arange(4)}
    (folder / "labels").mkdir(parents=True)
    for name, values in {**columns, **changes}.items():
        np.save(folder / f"{name}.npy", values)
    (folder / "source.json").write_text(json.dumps({"num_actions": 5}))


def test_a_recording_is_mapped_and_never_unpickled(tmp_path: Path) -> None:
    write_recording(tmp_path)
    episodes = read_recording(tmp_path)
    assert (episodes.num_actions, episodes.labels["x"].tolist()) == (5, [0, 1, 2, 3])
    assert not episodes.frames.flags.owndata
    assert not episodes.frames.flags.writeable
    np.save(tmp_path / "reward.npy", np.array([{}] * 4, object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"reward.npy cannot be read .* to record again"):
        read_recording(tmp_path)
    (tmp_path / "frames.npy").write_bytes((tmp_path / "frames.npy").read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"frames.npy cannot be read"):
        read_recording(tmp_path)


def test_the_first_view_of_a_recording_is_its_frames(tmp_path: Path) -> None:
    views = np.random.default_rng(0).integers(256, size=(4, 2, *SHAPE), dtype=np.uint8)
    write_recording(tmp_path, views=views)
    (tmp_path / "frames.npy").unlink()
    episodes = read_recording(tmp_path)
    assert episodes.views is not None
    assert np.shares_memory(episodes.frames, episodes.views)
    np.testing.assert_array_equal(episodes.frames, views[:, 0])


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": np.zeros(4, np.uint8)},
        {"frames": np.zeros((4, *SHAPE), np.float32)},
        {"frames": np.zeros((3, *SHAPE), np.uint8)},
        {"frames": np.zeros((4, *SHAPE), np.int8)},
        {"begin": np.array([0.0, 3.0])},
        {"end": np.array([3, 5])},
        {"end": np.array(4)},
        {"action": np.array([0, 1, 2, 5])},
        {"action": np.zeros((4, 2), np.float32)},
        {"reward": np.array(["a"] * 4)},
        {"labels/x": np.zeros((4, 3))},
        {"views": np.zeros(4, np.uint8)},
        {"views": np.zeros((4, 0, *SHAPE), np.uint8)},
        {"views": np.zeros((3, 2, *SHAPE), np.uint8)},
    ],
    ids=str,
)
def test_an_odd_array_of_a_recording_is_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_recording(tmp_path / "here", **changes)
    with pytest.raises(ValueError, match=r"here holds no recording \(.*remove it to record again") as error:
        read_recording(tmp_path / "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("old", [b"{", b"}", b"'", b"(", b"descr", b"u1", b"\x93NUMPY", b"NUMPY\x01", b"4"])
def test_a_damaged_header_of_a_recording_is_one_line(tmp_path: Path, old: bytes) -> None:
    write_recording(tmp_path)
    path = tmp_path / "frames.npy"
    path.write_bytes(path.read_bytes().replace(old, b"<" * len(old), 1))
    with pytest.raises(ValueError, match=r"frames\.npy cannot be read .*to record again") as error:
        read_recording(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "null", "5", "{}", '"num_actions"', "[" * 100_000, "\xff"),
        *(f'{{"num_actions": {odd}}}' for odd in ('"5"', "0", "true", "1e999", "99999999999", "2.5")),
    ],
    ids=lambda content: content[:20],
)
def test_an_odd_description_of_a_recording_is_one_line(tmp_path: Path, content: str) -> None:
    write_recording(tmp_path / "here")
    (tmp_path / "here/source.json").write_text(content, "latin-1")
    with pytest.raises(ValueError, match=r"here holds no recording \(source.json: .*give source.path=") as error:
        read_recording(tmp_path / "here")
    assert "\n" not in str(error.value)


# --- replay ---


def played(storage: FrameStorage, steps: int, seed: int) -> list[list[dict[str, Any]]]:
    """Write random episodes; returns the rows of each copy, each with its frame, its action and what it is."""
    rng = np.random.default_rng(seed)
    copies, number, rows = storage.num_envs, 0, [[] for _ in range(storage.num_envs)]
    state, episode = ["first"] * copies, [0] * copies
    for _ in range(steps):
        frame = rng.integers(256, size=(copies, *SHAPE), dtype=np.uint8)
        action = rng.uniform(-1, 1, (copies, 2)).astype(np.float32)
        first, terminated, truncated, valid = np.zeros((4, copies), bool)
        for i, now in enumerate(state):
            valid[i] = now in ("first", "running")
            first[i] = now == "first"
            if first[i]:
                number += 1
                episode[i] = number
            rows[i].append({"frame": frame[i], "action": action[i], "episode": episode[i], "what": now})
            if valid[i]:
                end = rng.choice(["go on", "terminated", "truncated", "life"], p=[0.6, 0.15, 0.15, 0.1])
                terminated[i], truncated[i] = end in ("terminated", "life"), end == "truncated"
                state[i] = "last" if end in ("terminated", "truncated") else "running"
            else:
                state[i] = "junk" if rng.random() < 0.3 else "first"
        storage.add(frame, first, action, frame[:, 0, 0, 0].astype(np.float32), terminated, truncated, valid)
    return rows


def test_a_replay_of_states_is_refused() -> None:
    storage = FrameStorage(12, 3, (3, 1, 1), Box(-1, 1, (2,)), frame_dtype=np.float32)
    none, number = np.zeros(3, np.bool_), np.zeros(3, np.float32)
    storage.add(np.zeros((3, 3, 1, 1), np.float32), ~none, np.zeros((3, 2), np.float32), number, none, none, ~none)
    with pytest.raises(ValueError, match="source=replay reads pixels, and this replay holds states"):
        read_storage(storage.state_dict(), None)


@pytest.mark.parametrize(("steps", "seed"), [(9, 0), (40, 1), (61, 2), (75, 3), (90, 4)])
def test_the_episodes_of_a_replay(steps: int, seed: int) -> None:
    copies, held = 3, 40
    storage = FrameStorage(held * copies, copies, SHAPE, Box(-1, 1, (2,)))
    rows = played(storage, steps, seed)
    episodes = read_storage(storage.state_dict(), None)
    wanted: list[list[dict[str, Any]]] = []
    for copy in rows:
        kept = [row for row in copy[-held:] if row["what"] != "junk"]
        games = [[row for row in kept if row["episode"] == game] for game in sorted({row["episode"] for row in kept})]
        wanted += [game for game in games if game[0]["what"] != "last"]  # nothing but its last frame is still held
    assert len(episodes.begin) == len(wanted)
    for begin, end, game in zip(episodes.begin, episodes.end, wanted, strict=True):
        np.testing.assert_array_equal(episodes.frames[begin:end], [row["frame"] for row in game])
        np.testing.assert_array_equal(episodes.action[begin:end], [row["action"] for row in game])
        np.testing.assert_array_equal(episodes.reward[begin:end], [row["frame"][0, 0, 0] for row in game])
