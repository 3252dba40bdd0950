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

    Of single frames that have names alone, one row a name: what shares a name stands side by side.

    Args:
        inputs: (K, frame_stack * C, H, W) observations, C 1 or 3.
        predicted: K answers, or what the observations are.
        correct: K labels; None if nothing was asked.
        frame_stack: frames in an observation.

    Returns:
        (S * rows * H, S * columns * W + TEXT, 3) image, with S pixels for one so that two lines fit beside a row.
    """
    count, _, height, width = inputs.shape
    rows = len(set(predicted)) if correct is None and frame_stack == 1 else count
    scale = max(2, round(100 / height))
    frames = inputs.reshape(count // rows, rows, frame_stack, -1, height, width).transpose(1, 4, 0, 2, 5, 3)
    grid = frames.reshape(rows * height, count // rows * frame_stack * width, -1).repeat(scale, 0).repeat(scale, 1)
    high, wide = grid.shape[:2]
    sheet = Image.new("RGB", (wide + TEXT, high))
    sheet.paste(Image.fromarray(np.broadcast_to(grid, (high, wide, 3))), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for row, (answer, truth) in enumerate(zip(predicted[:rows], (correct or predicted)[:rows], strict=True)):
        text, colour = f"said {answer}\nwas  {truth}", GREEN if answer == truth else RED
        if not correct:
            text, colour = answer, WHITE
        draw.text((wide + 8, (row + 1 / 2) * height * scale), text, fill=colour, font=font, anchor="lm")
    return np.asarray(sheet)
