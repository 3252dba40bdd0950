"""Pictures of what a network sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GREEN, RED = (60, 200, 90), (230, 70, 70)
SCALE, TEXT = 2, 160  # a pixel becomes SCALE x SCALE; TEXT pixels to the right of the frames


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
        (SCALE * K * H, SCALE * frame_stack * W + TEXT, 3) image.
    """
    count, _, height, width = inputs.shape
    frames = inputs.reshape(count, frame_stack, -1, height, width).transpose(0, 3, 1, 4, 2)
    grid = frames.reshape(count * height, frame_stack * width, -1).repeat(SCALE, 0).repeat(SCALE, 1)
    rows, columns = grid.shape[:2]
    sheet = Image.new("RGB", (columns + TEXT, rows))
    sheet.paste(Image.fromarray(np.broadcast_to(grid, (rows, columns, 3))), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for row, (answer, truth) in enumerate(zip(predicted, correct, strict=True)):
        text = f"said {answer}\nwas  {truth}"
        place = (columns + 8, (row + 1 / 3) * height * SCALE)
        draw.text(place, text, fill=GREEN if answer == truth else RED, font=font)
    return np.asarray(sheet)
