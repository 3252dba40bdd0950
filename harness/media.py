"""Reading images and videos: the files in a folder, and their pixels. No file can open another or run a program."""

import logging
import re
import struct
import subprocess
import tempfile
import warnings
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.files import open_regular

if TYPE_CHECKING:  # imported where it is used, as is ffmpeg: composing a command line does without
    from PIL.Image import Image

Picture: TypeAlias = NDArray[np.uint8]  # (size, size, 3), resized: the middle square, or the whole with black borders

log = logging.getLogger(__name__)

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
VIDEOS = {".avi", ".gif", ".mkv", ".mov", ".mp4", ".webm"}
IMAGE_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # whatever the ending: Pillow passes some others to external programs
VIDEO_FORMATS = "avi,gif,matroska,mov"  # demuxers that open no second file
IMAGE_BYTES, VIDEO_BYTES = 1 << 30, 1 << 37  # the largest files that are opened
VIDEO_PIXELS = 7680 * 4320  # of a frame: a decoder holds up to 17 of them
NAMED = 3  # file names in a log line
DOWNLOADED = (Path("data/clips"), Path("data/backgrounds"))  # by a target of the Makefile of the same name


def find_files(folder: Path, suffixes: Collection[str], *, deep: bool = True) -> list[Path]:
    """The files with one of the endings in `folder`, and unless `deep` is false in its subfolders, sorted by path.

    Hidden files and folders are left out: editors and unfinished downloads create them. One log line says what was
    left out. Links to folders are followed.

    Raises:
        ValueError: there are none.
        OSError: a folder cannot be read.
    """
    if not folder.is_dir():
        hint = f": `make {folder.name}` fills it" if folder in DOWNLOADED else ""
        raise ValueError(f"{folder} is not a folder{hint}")
    found, left = list[Path](), defaultdict[str, list[str]](list)
    for path in _entries(folder, deep, ()):
        if _hidden(path):
            left["hidden"].append(str(path.relative_to(folder)))
        elif path.suffix.lower() in suffixes and not path.is_dir():
            found.append(path)
        else:
            left["of other kinds"].append(str(path.relative_to(folder)))
    left_out = [
        f"{len(names)} {why} ({', '.join(names[:NAMED])}{', ...' * (len(names) > NAMED)})"
        for why, names in left.items()
    ]
    _log_once(f"{folder}: {len(found)} files{'; left out: ' * bool(left_out)}{'; '.join(left_out)}")
    if not found:
        raise ValueError(f"{folder} has no files with one of the endings {' '.join(sorted(suffixes))}")
    return sorted(found)


@cache
def _log_once(message: str) -> None:  # a folder is read for each environment of a run
    log.info(message)


def _entries(folder: Path, deep: bool, above: tuple[Path, ...]) -> Iterator[Path]:
    """Files, and folders that are not entered: hidden ones, all unless `deep`, and links upwards."""
    above = (*above, folder.resolve())
    for path in sorted(folder.iterdir()):
        if deep and not _hidden(path) and path.is_dir() and path.resolve() not in above:
            yield from _entries(path, deep, above)
        else:
            yield path


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def read_image(path: Path, size: int, *, whole: bool = False) -> Picture:
    """The first picture of an image file, upright.

    Raises:
        ValueError: it is not an image of a known format, is damaged, or has more than 89 million pixels; the message
            names the file.
    """
    from PIL import Image, ImageOps

    bomb = (Image.DecompressionBombWarning, Image.DecompressionBombError)
    try:
        with warnings.catch_warnings(record=True, action="always") as warned, open_regular(path, IMAGE_BYTES) as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=IMAGE_FORMATS) as image:
                if image.format != "MPO" and getattr(image, "is_animated", False):  # MPO: previews of photographs
                    _log_once(f"{path.parent}: of animated images, such as {path.name}, the first picture is read")
                resize = ImageOps.pad if whole else ImageOps.fit
                pixels = np.asarray(resize(to_rgb(ImageOps.exif_transpose(image)), (size, size)))
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, *bomb) as error:
        reason = str(error).partition(" <_io.")[0]  # Pillow names the open file
        raise ValueError(f"{path} is not a readable image: {reason}") from error
    for warning in warned:
        log.warning("%s: %s", path, str(warning.message).strip())
    return pixels


def to_rgb(image: "Image") -> "Image":
    """Convert an image to RGB with 8 bits. In 16-bit grays 65,535 is white; transparent pixels get a black background.

    Raises:
        ValueError: the range of the pixels is not known.
    """
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels have no largest value: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 65535:
            raise ValueError(f"its grays reach from {gray.min()} to {gray.max()}, beyond 16 bits")
        image = Image.fromarray(((gray.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGB", image.size)
        black.paste(image, mask=image)
        return black
    return image.convert("RGB")


def read_video(path: Path, size: int, most: int | None = None, *, whole: bool = False) -> Iterator[Picture]:
    """The stored pictures of a video or animated GIF, at most `most` of them.

    Raises:
        ValueError: ffmpeg finds no picture of a known format and at most 8K; the message names the file.
    """
    fit = f"scale={size}:{size}:force_original_aspect_ratio=increase,crop={size}:{size}"
    if whole:
        fit = f"scale={size}:{size}:force_original_aspect_ratio=decrease,pad={size}:{size}:-1:-1"
    limit = [] if most is None else ["-frames:v", str(most)]
    raw = ["-fps_mode", "passthrough", "-vf", fit, *limit, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            _ffmpeg(path, raw), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as ffmpeg:
            assert ffmpeg.stdout is not None
            some = False
            while data := ffmpeg.stdout.read(3 * size**2):
                some = True
                yield np.frombuffer(data, np.uint8).reshape(size, size, 3)
        if not some:
            raise ValueError(f"{path} is not a readable video: {_reason(errors)}")
        if ffmpeg.returncode or errors.tell():
            log.warning("%s: a part cannot be read: %s", path, _reason(errors))


def count_pictures(path: Path) -> int:
    """An upper bound of the number of pictures in a video, without decoding it.

    Raises:
        ValueError: it has none, or ffmpeg cannot read it; the message names the file.
    """
    command = _ffmpeg(path, ["-c", "copy", "-progress", "-", "-f", "null", "-"])
    with tempfile.TemporaryFile() as errors:
        output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors).stdout
        counts = re.findall(rb"^frame=(\d+)$", output, re.MULTILINE)
        if not counts or not int(counts[-1]):
            raise ValueError(f"{path} is not a readable video: {_reason(errors)}")
    return int(counts[-1])


def _ffmpeg(path: Path, output: list[str]) -> list[str]:
    """An ffmpeg command that reads this file and no other, whatever its name and content."""
    import imageio_ffmpeg

    open_regular(path, VIDEO_BYTES).close()
    bounds = ["-protocol_whitelist", "file", "-format_whitelist", VIDEO_FORMATS, "-max_pixels", str(VIDEO_PIXELS)]
    source = ["-i", f"file:{path}", "-map", "0:V:0"]
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-nostats", "-v", "error", *bounds, *source, *output]


def _reason(errors: IO[bytes]) -> str:
    """The first error of ffmpeg, without the memory address in it."""
    errors.seek(0)
    lines = errors.read(10_000).decode(errors="replace").splitlines()
    return re.sub(r"\[[^]]* @ 0x[0-9a-f]+\] *", "", lines[0]) if lines else "ffmpeg finds no picture in it"
