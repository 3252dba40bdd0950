"""Videos for tests."""

from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np


def write_video(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Encode (H, W, 3) frames without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = list(frames)
    size, options = frames[0].shape[1::-1], ["-crf", "0"]
    writer = imageio_ffmpeg.write_frames(path, size, fps=25, macro_block_size=2, output_params=options)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
