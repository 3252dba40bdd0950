"""Videos as mp4 files."""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from analysis.picture import Pixels
from harness.files import replacing
from harness.signals import blocked

VideoWriter: TypeAlias = AbstractContextManager[Callable[[Pixels], None]]


def video_writer(path: Path, fps: float, comment: str = "") -> VideoWriter:
    """Stream RGB frames into an mp4 (H.264, yuv420p). The file appears when the `with` block ends without error.

        with video_writer(path, fps=15) as add:
            add(frame)

    Frames (H, W, 3) all have one size. H.264 needs even sizes: an odd last row or column is doubled.

    Args:
        path: of the file; ends in .mp4.
        fps: frames per second of playback.
        comment: metadata, stored as plain text near the end of the file.

    Raises:
        ValueError: the path does not end in .mp4; raised by the call, before the block.
        OSError: the file could not be written completely.
    """
    if path.suffix != ".mp4":
        raise ValueError(f"video={path}: the file must end in .mp4")
    return _writing(path, fps, comment)


@contextmanager
def _writing(path: Path, fps: float, comment: str) -> Iterator[Callable[[Pixels], None]]:
    ffmpeg: Generator[Any, Any, None] | None = None

    def add(rgb: Pixels) -> None:
        nonlocal ffmpeg
        height, width, _ = rgb.shape
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if ffmpeg is None:
            import imageio_ffmpeg  # large, and of videos alone

            ffmpeg = imageio_ffmpeg.write_frames(
                part,
                rgb.shape[1::-1],
                fps=fps,
                codec="libx264",
                macro_block_size=2,
                ffmpeg_log_level="error",
                output_params=["-f", "mp4", "-metadata", f"comment={comment}"],
            )
            started.enter_context(closing(ffmpeg))
            with blocked():  # or a signal of the terminal would end ffmpeg before the file is whole
                ffmpeg.send(None)
        ffmpeg.send(np.ascontiguousarray(rgb))

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        with ExitStack() as started:
            yield add
        if b"moov" not in part.read_bytes():  # the index, which comes last
            raise OSError(f"{path}: ffmpeg did not write it to its end")
