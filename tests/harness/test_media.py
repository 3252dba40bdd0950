"""Pictures are read as they are stored, whatever their mode and rate; nothing in a file or its name reaches further."""

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from video_help import write_video

from harness.media import IMAGES, VIDEOS, count_pictures, find_files, read_image, read_video, to_rgb

SIZE = 8


def ffmpeg(*words: str) -> None:
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *words], check=True)


def gray(*values: int) -> list[np.ndarray]:
    return [np.full((16, 16, 3), value, np.uint8) for value in values]


# --- images ---


def of_mode(mode: str, color: object) -> Image.Image:
    return Image.new(mode, (4, 4), color)


def of_array(values: object, kind: str) -> Image.Image:
    return Image.fromarray(np.full((4, 4), values, kind))


def palette(mode: str, transparent: bool = False) -> Image.Image:
    image = Image.new(mode, (4, 4))
    image.putpalette([10, 20, 30] * 256)
    if transparent:
        image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (of_array(20_000, "<u2"), (78, 78, 78)),  # I;16: 20,000 of 65,535
        (of_array(65_535, "<u2"), (255, 255, 255)),
        (of_array(20_000, ">u2"), (78, 78, 78)),  # I;16B
        (of_array(20_000, "<i4"), (78, 78, 78)),  # I
        (of_array(True, "bool"), (255, 255, 255)),  # 1
        (of_mode("L", 70), (70, 70, 70)),
        (of_mode("LA", (200, 255)), (200, 200, 200)),
        (of_mode("LA", (200, 51)), (40, 40, 40)),  # a fifth of it, before black
        (of_mode("RGB", (1, 2, 3)), (1, 2, 3)),
        (of_mode("RGBA", (200, 100, 50, 255)), (200, 100, 50)),
        (of_mode("RGBA", (200, 100, 50, 51)), (40, 20, 10)),
        (of_mode("RGBA", (200, 100, 50, 0)), (0, 0, 0)),
        (of_mode("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        (of_mode("YCbCr", (90, 128, 128)), (90, 90, 90)),
        (palette("P"), (10, 20, 30)),
        (palette("P", transparent=True), (0, 0, 0)),
        (palette("PA"), (0, 0, 0)),  # of alpha 0
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_keeps_its_brightness(image: Image.Image, wanted: tuple[int, int, int]) -> None:
    pixels = np.asarray(to_rgb(image)).astype(int)
    assert pixels.shape == (4, 4, 3)
    assert np.abs(pixels - wanted).max() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (of_array(0.5, "<f4"), "floating-point"),
        (of_array(70_000, "<i4"), "70000, beyond 16 bits"),
        (of_array(-1, "<i4"), "from -1"),
    ],
)
def test_pixels_of_no_known_range_are_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_rgb(image)


def test_a_file_of_16_bit_grays_keeps_its_ramp(tmp_path: Path) -> None:
    ramp = (np.arange(4096).reshape(64, 64) * 16).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    shown = read_image(tmp_path / "ramp.png", 64)
    np.testing.assert_array_equal(shown, np.repeat((ramp / 257).round().astype(np.uint8)[..., None], 3, 2))


# --- videos ---


def variable(path: Path) -> None:
    """60 pictures, the second half of them at a twentieth of the rate."""
    slow = "setpts='if(lt(N,30),N,30+(N-30)*20)/30/TB'"
    source = ["-f", "lavfi", "-i", "testsrc=size=16x16:rate=30:duration=2"]
    ffmpeg(*source, "-vf", slow, "-fps_mode", "vfr", "-pix_fmt", "yuv420p", str(path))


def animation(path: Path) -> None:
    """12 pictures, the last of them held."""
    first, *others = (Image.fromarray(picture) for picture in gray(*range(10, 250, 20)))
    first.save(path, save_all=True, append_images=others, duration=[100] * 11 + [3000], loop=0)


@pytest.mark.parametrize(
    ("name", "write", "count"),
    [
        ("x.mp4", variable, 60),
        ("x.mkv", variable, 60),
        ("x.gif", animation, 12),
        ("x.avi", lambda path: write_video(path, gray(*range(0, 250, 10))), 25),
        ("x.webm", lambda path: ffmpeg("-f", "lavfi", "-i", "testsrc=size=16x16:duration=1", str(path)), 25),
        ("x.mov", lambda path: write_video(path, gray(0)), 1),
    ],
)
def test_each_picture_of_a_video_is_read_once(
    name: str, write: Callable[[Path], None], count: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / name)
    pictures = list(read_video(tmp_path / name, SIZE))
    assert len(pictures) == count_pictures(tmp_path / name) == count
    assert {picture.shape for picture in pictures} == {(SIZE, SIZE, 3)}
    assert len(list(read_video(tmp_path / name, SIZE, most=5))) == min(count, 5)
    assert not caplog.records


def test_the_pictures_are_in_order(tmp_path: Path) -> None:
    animation(tmp_path / "x.gif")
    brightness = [picture.mean() for picture in read_video(tmp_path / "x.gif", SIZE)]
    np.testing.assert_allclose(brightness, range(10, 250, 20), atol=2)


def test_a_torn_video_is_read_as_far_as_it_goes_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.avi"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64:duration=4", str(path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 900] = bytes(900)
    path.write_bytes(content)
    assert len(list(read_video(path, SIZE))) > 20
    assert "x.avi: a part cannot be read" in caplog.text


# --- what a name or a content could reach ---

DASH = """<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="urn:mpeg:dash:profile:isoff-main:2011"
 mediaPresentationDuration="PT1S"><Period><AdaptationSet contentType="video"><Representation id="0" bandwidth="1"
 mimeType="video/mp4"><BaseURL>{}</BaseURL><SegmentList><SegmentURL media="{}"/></SegmentList></Representation>
</AdaptationSet></Period></MPD>"""
PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"


def read(path: Path) -> int:
    return len(list(read_video(path, SIZE)))


@pytest.mark.parametrize("use", [read, count_pictures])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dash.mp4", DASH),
        ("hls.mp4", PLAYLIST),
        ("concat.mp4", "ffconcat version 1.0\nfile '{}'\n"),
        ("picture.mkv", "P6 1 1 255\n{}"),
        ("text.gif", "no video {}"),
        ("empty.mp4", ""),
    ],
)
def test_a_video_opens_no_other_file(use: Callable[[Path], int], name: str, content: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    write_video(secret, gray(200, 100))
    (tmp_path / name).write_text(content.format(secret, secret))
    with pytest.raises(ValueError, match=f"{name} is not a readable video: "):
        use(tmp_path / name)


@pytest.mark.parametrize("name", ["http:/x/a.mp4", "subfile,,start,0,end,9,,:a.mp4", "-y.mp4", "a%03d.mp4", "a b'.mp4"])
def test_a_name_is_only_a_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "plain.mp4", gray(200, 100))
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "plain.mp4").rename(Path(name).absolute())
    assert count_pictures(Path(name)) == read(Path(name)) == 2


@pytest.mark.parametrize("read", [read, count_pictures, lambda path: read_image(path, SIZE)])
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()])
def test_only_regular_files_are_opened(
    read: Callable[[Path], int], make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"a\.mp4 is not a .*regular file"):
        read(tmp_path / "a.mp4")


def test_files_without_end_are_not_opened(tmp_path: Path) -> None:
    for name, read in {"a.png": lambda path: read_image(path, SIZE), "a.mp4": count_pictures}.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 40)  # takes no room
        with pytest.raises(ValueError, match=f"{name} is .*larger than"):
            read(tmp_path / name)


def test_a_small_video_of_huge_pictures_is_refused_before_they_are_made(tmp_path: Path) -> None:
    ffmpeg(
        "-f", "lavfi", "-i", "color=black:size=8192x8192:rate=1:duration=1", "-c:v", "mjpeg", str(tmp_path / "a.avi")
    )
    assert (tmp_path / "a.avi").stat().st_size < 2_000_000
    with pytest.raises(ValueError, match=r"a\.avi is not a readable video: .*8192x8192"):
        list(read_video(tmp_path / "a.avi", SIZE))


@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"GIF89a", b"<svg/>", b"\x89PNG\r\n\x1a\n"],
)
def test_no_image_reaches_another_program(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.png").write_bytes(content)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=r"b\.png is not a readable image"):
        read_image(tmp_path / "b.png", SIZE)


@pytest.mark.parametrize("side", [9_600, 14_000])
def test_a_small_image_of_too_many_pixels_is_one_line(
    side: int, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (side, side)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"a\.png is not a readable image: .*pixels"):
        read_image(tmp_path / "a.png", SIZE)
    assert not recwarn.list


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_an_animated_image_is_its_first_picture_and_told(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second = (Image.fromarray(picture) for picture in gray(200, 10))
    first.save(tmp_path / name, save_all=True, append_images=[second])
    assert read_image(tmp_path / name, SIZE).min() > 190
    assert f"such as {name}, the first picture is read" in caplog.text


def test_what_pillow_complains_about_is_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    image = Image.new("RGB", (9, 9))
    exif = image.getexif()
    exif[0x0112] = 1
    image.save(tmp_path / "a.png", exif=exif.tobytes()[:-9])
    read_image(tmp_path / "a.png", SIZE)
    assert "a.png: Corrupt EXIF data" in caplog.text
    assert not recwarn.list


# --- folders ---


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outside = tmp_path / "outside"
    names = ["cat/1.png", "cat/2.JPG", "cat/._1.png", ".ipynb_checkpoints/1.png", ".DS_Store", "cat/notes.txt", "a.mp4"]
    for name in names:
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).touch()
    outside.mkdir()
    (outside / "9.png").touch()
    (tmp_path / "d/dog").symlink_to(outside)
    (tmp_path / "d/cat/loop").symlink_to(tmp_path / "d")
    found = [str(path.relative_to(tmp_path / "d")) for path in find_files(tmp_path / "d", IMAGES)]
    assert found == ["cat/1.png", "cat/2.JPG", "dog/9.png"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        f"{tmp_path / 'd'}: 3 files; left out: 3 hidden (.DS_Store, .ipynb_checkpoints, cat/._1.png)"
    )
    assert "3 of other kinds (a.mp4, cat/loop, cat/notes.txt)" in line
    assert [path.name for path in find_files(tmp_path / "d", VIDEOS, deep=False)] == ["a.mp4"]
    assert "2 of other kinds (cat, dog)" in caplog.records[-1].getMessage()
    for folder, message in {"outside": "has no files", "nothing": "is not a folder"}.items():
        with pytest.raises(ValueError, match=message):
            find_files(tmp_path / folder, VIDEOS)


@pytest.mark.parametrize("name", ["clips", "backgrounds"])
def test_a_missing_folder_of_the_makefile_is_told_with_the_command_that_fills_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"\n{name}:" in (Path(__file__).parents[2] / "Makefile").read_text()
    with pytest.raises(ValueError, match=f"data/{name} is not a folder: `make {name}` fills it"):
        find_files(Path(f"data/{name}"), VIDEOS)
