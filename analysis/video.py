"""Videos as mp4 files."""

from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from analysis.picture import Pixels
from harness.files import replacing
from harness.signals import blocked


class VideoWriter:
    """Streams RGB frames into an mp4 (H.264, yuv420p). The file appears when the `with` block ends without error.

    Args:
        path: of the file; ends in .mp4.
        fps: frames per second of playback.
        comment: metadata, stored as plain text near the end of the file.

    Raises:
        ValueError: the path does not end in .mp4.
        OSError: the file could not be written completely.
    """

    def __init__(self, path: Path, fps: float, comment: str = "") -> None:
        if path.suffix != ".mp4":
            raise ValueError(f"video={path}: the file must end in .mp4")
        self.path, self.fps, self.comment = path, fps, comment
        self._replacing = replacing(path)
        self._ffmpeg: Generator[Any, Any, None] | None = None

    def __enter__(self) -> "VideoWriter":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self._replacing.__enter__()
        return self

    def add(self, rgb: Pixels) -> None:
        """Append a frame (H, W, 3); all have one size. H.264 needs even sizes: an odd last row or column is doubled."""
        height, width, _ = rgb.shape
        rgb = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._ffmpeg is None:
            import imageio_ffmpeg  # large, and of videos alone

            self._ffmpeg = imageio_ffmpeg.write_frames(
                self._part,
                rgb.shape[1::-1],
                fps=self.fps,
                codec="libx264",
                macro_block_size=2,
                ffmpeg_log_level="error",
                output_params=["-f", "mp4", "-metadata", f"comment={self.comment}"],
            )
            with blocked():  # or a signal of the terminal would end ffmpeg before the file is whole
                self._ffmpeg.send(None)
        self._ffmpeg.send(np.ascontiguousarray(rgb))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ffmpeg is not None:
            self._ffmpeg.close()
        torn = None
        if kind is None and b"moov" not in self._part.read_bytes():  # the index, which comes last
            torn = OSError(f"{self.path}: ffmpeg did not write it to its end")
            kind, error = OSError, torn
        self._replacing.__exit__(kind, error, trace)
        if torn:
            raise torn
