"""Pictures of what a network sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

GREEN, RED = (60, 200, 90), (230, 70, 70)


def contact_sheet(
    inputs: NDArray[np.uint8], predicted: Sequence[str], correct: Sequence[str], frame_stack: int
) -> NDArray[np.uint8]:
    """One row an observation, one column a frame; the answer beside it, green where it is right.

    Args:
        inputs: (K, frame_stack * C, H, W) observations, C 1 or 3.
        predicted: K answers.
        correct: K labels.
        frame_stack: frames in an observation.

    Returns:
        (rows, columns, 3) image.
    """
    count, _, height, width = inputs.shape
    frames = inputs.reshape(count, frame_stack, -1, height, width).transpose(0, 3, 1, 4, 2)
    grid = frames.reshape(count * height, frame_stack * width, -1)
    sheet = Image.new("RGB", (frame_stack * width + 110, count * height))
    sheet.paste(Image.fromarray(np.broadcast_to(grid, (*grid.shape[:2], 3))), (0, 0))
    draw = ImageDraw.Draw(sheet)
    for row, (answer, truth) in enumerate(zip(predicted, correct, strict=True)):
        text = f"said {answer}\nwas  {truth}"
        draw.text((frame_stack * width + 6, row * height + height // 3), text, fill=GREEN if answer == truth else RED)
    return np.asarray(sheet)
