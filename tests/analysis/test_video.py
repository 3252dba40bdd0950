import subprocess

import imageio_ffmpeg
import numpy as np
import pytest

from analysis.picture import GAP, above_each_other, panel, side_by_side
from analysis.video import video_writer


def read(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]


def test_frames_come_back_in_order_with_size_rate_and_codec(tmp_path):
    path = tmp_path / "new" / "game.mp4"
    shades = [20, 90, 160, 230]
    with video_writer(path, fps=15) as add:
        for shade in shades:
            frame = np.full((48, 64, 3), shade, np.uint8)
            frame[:, 32:] = 0
            add(frame)
        assert not path.exists()
    meta, frames = read(path)
    assert (meta["size"], meta["fps"], meta["codec"]) == ((64, 48), 15, "h264")
    assert meta["pix_fmt"].startswith("yuv420p")
    assert [f[:, :24].mean() for f in frames] == pytest.approx(shades, abs=8)
    assert max(f[:, 40:].mean() for f in frames) < 8
    assert list(path.parent.iterdir()) == [path]


def test_an_odd_size_becomes_even_and_a_player_can_decode_it(tmp_path):
    path = tmp_path / "game.mp4"
    with video_writer(path, fps=7.5) as add:
        for _ in range(3):
            add(np.random.default_rng(0).integers(256, size=(35, 51, 3), dtype=np.uint8))
    assert read(path)[0]["size"] == (52, 36)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "null", "-"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


def test_an_error_leaves_no_torn_file(tmp_path):
    frames = [np.zeros((32, 32, 3), np.uint8), None]
    with pytest.raises(AttributeError), video_writer(tmp_path / "game.mp4", fps=15) as add:
        list(map(add, frames))
    with pytest.raises(ValueError, match=r"game\.gif: the file must end in \.mp4"):
        video_writer(tmp_path / "game.gif", fps=15)
    assert not list(tmp_path.iterdir())


def test_no_frames_make_no_file_and_a_comment_stands_in_the_file(tmp_path):
    with pytest.raises(OSError, match="did not write"), video_writer(tmp_path / "game.mp4", fps=15):
        pass
    assert not list(tmp_path.iterdir())
    with video_writer(tmp_path / "game.mp4", fps=15, comment="sha256 0123") as add:
        add(np.zeros((32, 32, 3), np.uint8))
    assert b"sha256 0123" in (tmp_path / "game.mp4").read_bytes()


def test_a_video_is_not_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("game.mp4", ".game.part.mp4", ".game.mp4.tmp"):
        (tmp_path / name).symlink_to(victim)
    with video_writer(tmp_path / "game.mp4", fps=15) as add:
        add(np.zeros((32, 32, 3), np.uint8))
    assert victim.read_text() == "mine"
    assert not (tmp_path / "game.mp4").is_symlink()


def test_panel_enlarges_exactly_and_writes_its_caption():
    image = np.random.default_rng(1).integers(256, size=(10, 20, 3), dtype=np.uint8)
    shown = panel(image, 40, "")
    np.testing.assert_array_equal(shown[-40:], image.repeat(4, 0).repeat(2, 1))
    assert (shown[:-40] == 255).all()
    captioned = panel(image, 40, "score 7")
    assert captioned[:-40].min() < 60
    assert (panel(image, 40, "score 8")[:-40] != captioned[:-40]).any()


def test_pictures_stand_apart():
    black = np.zeros((10, 20, 3), np.uint8)
    row = side_by_side([black, black, black])
    assert row.shape == (10, 60 + 2 * GAP, 3)
    assert [x for x in range(row.shape[1]) if row[0, x].all()] == [*range(20, 28), *range(48, 56)]
    np.testing.assert_array_equal(above_each_other([black.swapaxes(0, 1)] * 3), row.swapaxes(0, 1))
