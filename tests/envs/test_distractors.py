import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from video_help import write_video

from envs import DmcConfig
from envs.distractors import (
    BALL_RADIUS,
    FILM,
    SPLITS,
    TIME_STEP,
    Clips,
    Gas,
    add_noise,
    background_rng,
    build_background,
    check_files,
    describe_files,
    load_clip,
    split_files,
)

SIZE = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of one gray each, 20 i + 30, and a video that brightens from left black to right black."""
    for i in range(10):
        Image.new("RGB", (40, 30), (20 * i + 30,) * 3).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def gray(values: range) -> list[np.ndarray]:
    return [np.full((32, 64, 3), value, np.uint8) for value in values]


def test_gas_moves_as_a_step_by_step_simulation() -> None:
    gas = Gas(10, SIZE, 0, "train")
    gas.start(np.random.default_rng(0))
    start, velocity = gas.positions(0), (gas.positions(1) - gas.positions(0)) / TIME_STEP
    assert (np.abs(velocity) < 1).all()
    position = start.copy()
    for step in range(1000):
        np.testing.assert_allclose(gas.positions(step), position, atol=1e-9)
        position += velocity * TIME_STEP
        for wall, beyond in ((0, position < 0), (1, position > 1)):
            velocity[beyond] *= -1
            position[beyond] = 2 * wall - position[beyond]
    assert position.min() >= 0
    assert position.max() <= 1
    assert np.abs(position - start).max() > 0.3


def test_gas_draws_every_ball_where_it_is() -> None:
    gas = Gas(4, 200, 0, "train")
    gas.start(np.random.default_rng(3))
    picture, positions = [gas.frame() for _ in range(8)][7], gas.positions(7).T * 200
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 5
    for x, y in positions:
        rows, cols = np.nonzero((picture == picture[int(y), int(x)]).all(-1))
        np.testing.assert_allclose([cols.mean() + 0.5, rows.mean() + 0.5], [x, y], atol=2)
        assert len(rows) == pytest.approx(np.pi * (BALL_RADIUS * 200) ** 2, rel=0.05)


def test_every_episode_of_the_gas_is_somewhere_in_a_film_that_repeats() -> None:
    films = [Gas(3, 12, 1, "train"), Gas(3, 12, 1, "train")]
    for gas, seed in zip(films, (0, 1), strict=True):
        gas.start(np.random.default_rng(seed))
    one, other = ([gas.frame().tobytes() for _ in range(FILM + 5)] for gas in films)
    assert one[:5] == one[FILM:]
    assert one[:5] != other[:5]
    assert set(one) == set(other)


def episodes(kind: str, split: str, folder: Path, seed: int = 0, count: int = 6, length: int = 5) -> list[bytes]:
    background = build(kind, folder, split)
    rng = background_rng(np.random.SeedSequence(seed), split)
    seen = []
    for _ in range(count):
        background.start(rng)
        frames = [background.frame() for _ in range(length)]
        assert {(frame.shape, frame.dtype) for frame in frames} == {((SIZE, SIZE, 3), np.dtype(np.uint8))}
        seen.append(np.stack(frames).tobytes())
    return seen


@pytest.mark.parametrize("kind", ["gas", "noise", "images", "video"])
def test_backgrounds_follow_from_the_seed_change_with_the_episode_and_differ_between_splits(
    kind: str, folder: Path
) -> None:
    if kind == "video":
        for i in range(4):
            write_video(folder / f"{i}.mp4", gray(range(60 * i + 5, 60 * i + 35)))
    train, again = (episodes(kind, "train", folder) for _ in range(2))
    assert train == again
    assert len(set(train)) > 2
    assert train != episodes(kind, "train", folder, seed=1)
    assert not set(train) & set(episodes(kind, "eval", folder))


def test_files_are_dealt_to_one_split_only(folder: Path) -> None:
    split = split_files(folder, "images")
    assert sorted(split["train"] + split["eval"]) == sorted(folder.glob("*.png"))
    assert not set(split["train"]) & set(split["eval"])
    for name in SPLITS:
        grays = {episode[0] for episode in episodes("images", name, folder, count=40)}
        assert grays == {20 * int(path.stem) + 30 for path in split[name]}


def test_a_new_file_moves_no_other_to_evaluation(folder: Path) -> None:
    before = split_files(folder, "images")
    for name in ("000.png", "._1.png", "55.png"):
        Image.new("RGB", (4, 4)).save(folder / name)
    after = split_files(folder, "images")
    assert not set(before["train"]) & set(after["eval"])
    assert not {path.name for files in after.values() for path in files} & {"._1.png"}


def test_a_description_of_backgrounds_changes_with_them(folder: Path) -> None:
    first = describe_files("images", str(folder))
    assert (first["backgrounds"], describe_files("gas", "")) == (10, {})
    (folder / "notes.txt").write_text("no picture, as before")
    assert describe_files("images", str(folder)) == first
    Image.new("RGB", (40, 30), (31, 30, 30)).save(folder / "0.png")
    assert describe_files("images", str(folder))["sha256"] != first["sha256"]
    (folder / "1.png").unlink()
    assert describe_files("images", str(folder))["backgrounds"] == 9


def test_a_report_names_backgrounds_by_their_content(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    here, there = (
        DmcConfig(background="images", background_folder=str(path)).description() for path in (folder, moved)
    )
    assert here == there
    (moved / "0.png").unlink()
    assert here != DmcConfig(background="images", background_folder=str(moved)).description()


@pytest.mark.parametrize("kind", ["images", "video"])
@pytest.mark.parametrize("split", SPLITS)
def test_every_file_of_both_splits_is_checked_at_once(kind: str, split: str, tmp_path: Path) -> None:
    ending = {"images": "png", "video": "mp4"}[kind]
    for i in range(6):
        if kind == "images":
            Image.new("RGB", (40, 30), (i, i, i)).save(tmp_path / f"{i}.png")
        else:
            write_video(tmp_path / f"{i}.mp4", gray(range(3 * i, 3 * i + 3)))
    (tmp_path / f"._0.{ending}").write_text("resource fork")
    check_files(kind, str(tmp_path))
    torn = split_files(tmp_path, kind)[split][-1]
    torn.write_bytes(torn.read_bytes()[:30])
    check_files.cache_clear()
    with pytest.raises(ValueError, match=rf"{torn.name} is not a readable"):
        check_files(kind, str(tmp_path))


def test_an_image_stands_still_and_a_video_goes_on_in_a_loop(folder: Path) -> None:
    (still,) = episodes("images", "train", folder, count=1)
    assert len(set(still)) == 1
    write_video(folder / "ramp.mp4", gray(range(0, 240, 20)))
    video = Clips([folder / "ramp.mp4"], SIZE)
    video.start(np.random.default_rng(1))
    grays = [int(video.frame().mean() + 10) // 20 for _ in range(30)]
    assert grays == [(grays[0] + i) % 12 for i in range(30)]
    starts = set()
    for seed in range(8):
        video.start(np.random.default_rng(seed))
        starts.add(video.frame().tobytes())
    assert len(starts) > 3


def test_the_middle_square_is_shown(tmp_path: Path) -> None:
    wide = np.zeros((30, 90, 3), np.uint8)
    wide[:, 30:60] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert load_clip(tmp_path / "wide.png", SIZE)[:, :, 3:-3].min() > 150


def test_gray_backgrounds_have_the_luma_of_the_coloured_ones(folder: Path) -> None:
    settings = {"balls": 5, "films": 1, "folder": str(folder), "split": "train"}
    coloured, gray = (build_background("gas", SIZE, **settings, gray=gray) for gray in (False, True))
    for background in (coloured, gray):
        background.start(np.random.default_rng(0))
    for _ in range(3):
        luma = np.tensordot(coloured.frame(), [0.299, 0.587, 0.114], 1)
        assert np.abs(gray.frame() - luma[..., None]).max() <= 0.5


@pytest.mark.parametrize("kind", ["gas", "video"])
def test_pictures_that_are_skipped_pass(kind: str, folder: Path) -> None:
    write_video(folder / "a.mp4", gray(range(0, 240, 20)))
    write_video(folder / "b.mp4", gray(range(5, 240, 20)))
    write_video(folder / "c.mp4", gray(range(10, 240, 20)))
    each, third = build(kind, folder), build(kind, folder)
    for background in (each, third):
        background.start(np.random.default_rng(0))
    passed = [each.frame() for _ in range(12)]
    assert all(np.array_equal(third.frame(2), passed[i]) for i in (2, 5, 8, 11))


def test_pixel_noise_has_the_deviation_that_is_asked_for() -> None:
    noisy = add_noise(np.full((3, 64, 64), 128, np.uint8), 10.0, np.random.default_rng(0)).astype(float)
    assert noisy.std() == pytest.approx(10, rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=0.5)


def build(kind: str, folder: Path, split: str = "train") -> Any:
    return build_background(kind, SIZE, balls=10, films=2, folder=str(folder), split=split)


@pytest.mark.parametrize(
    ("use", "name", "message"),
    [
        (partial(build, "images"), "one.png", "background_folder=.* has 1 images files .*: 2 are needed"),
        (partial(build, "video"), "one.mp4", "background_folder=.* has 1 video files .*: 2 are needed"),
        (lambda folder: load_clip(folder / "broken.mp4", SIZE), "broken.mp4", r"broken\.mp4 is not a readable video: "),
    ],
)
def test_files_that_cannot_be_used_are_named(use: Any, name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=message) as error:
        use(tmp_path)
    assert "\n" not in str(error.value)


def test_no_background_of_evaluation_may_be_one_of_training_by_another_name(folder: Path) -> None:
    check_files.cache_clear()
    check_files("images", str(folder))
    split = split_files(folder, "images")
    split["train"][0].write_bytes(split["eval"][0].read_bytes())
    check_files.cache_clear()
    with pytest.raises(
        ValueError, match=rf"{split['train'][0].name} is .*{split['eval'][0].name}, one of the backgrou"
    ):
        check_files("images", str(folder))
