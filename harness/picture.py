"""Pictures of what a network sees."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GREEN, RED, WHITE = (60, 200, 90), (230, 70, 70), (255, 255, 255)
TEXT = 160  # pixels to the right of the frames


def contact_sheet(
    inputs: NDArray[np.uint8], predicted: Sequence[str], correct: Sequence[str] | None, frame_stack: int
) -> NDArray[np.uint8]:
    """One row an observation, one column a frame; the answer beside it, green where it is right.

    Args:
        inputs: (K, frame_stack * C, H, W) observations, C 1 or 3.
        predicted: K answers, or what the observations are.
        correct: K labels; None if nothing was asked.
        frame_stack: frames in an observation.

    Returns:
        (S * K * H, S * frame_stack * W + TEXT, 3) image, with S pixels for one so that two lines fit beside a row.
    """
    count, _, height, width = inputs.shape
    scale = max(2, round(100 / height))
    frames = inputs.reshape(count, frame_stack, -1, height, width).transpose(0, 3, 1, 4, 2)
    grid = frames.reshape(count * height, frame_stack * width, -1).repeat(scale, 0).repeat(scale, 1)
    rows, columns = grid.shape[:2]
    sheet = Image.new("RGB", (columns + TEXT, rows))
    sheet.paste(Image.fromarray(np.broadcast_to(grid, (rows, columns, 3))), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for row, (answer, truth) in enumerate(zip(predicted, correct or predicted, strict=True)):
        text, colour = f"said {answer}\nwas  {truth}", GREEN if answer == truth else RED
        if not correct:
            text, colour = answer, WHITE
        draw.text((columns + 8, (row + 1 / 2) * height * scale), text, fill=colour, font=font, anchor="lm")
    return np.asarray(sheet)
