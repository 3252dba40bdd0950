"""Pictures of what a network sees."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GREEN, RED, BLACK = (0, 130, 50), (200, 30, 30), (0, 0, 0)
MARGIN, GAP = 16, 4  # pixels of white between samples and between pictures; between the frames of one
HEIGHT = 100  # pixels of a picture, at least
SMALL, LARGE = ImageFont.load_default(16), ImageFont.load_default(18)
LINE = 24  # pixels of a line of text


def contact_sheet(
    question: str,
    pictures: Mapping[str, NDArray[np.uint8]],
    predicted: Sequence[str] | None = None,
    correct: Sequence[str] | None = None,
    frame_stack: int = 1,
) -> NDArray[np.uint8]:
    """The question, and a row for each sample: named pictures, and beside them the answers, green where right.

    Args:
        question: what the head is asked.
        pictures: by name, (K, frame_stack * C, H, W) of K samples, C 1 or 3.
        predicted: K answers; None: the pictures are the answers.
        correct: K answers.
        frame_stack: frames in a picture, oldest first.

    Returns:
        (H', W', 3) image on white.
    """
    first = next(iter(pictures.values()))
    scale = max(2, round(HEIGHT / first.shape[2]))
    rows = {name: [_frames(sample, frame_stack, scale) for sample in samples] for name, samples in pictures.items()}
    captions = {name: name + f", {frame_stack} frames" * (frame_stack > 1) for name in pictures}
    widths = {name: max(samples[0].width, _width(captions[name])) for name, samples in rows.items()}
    answers = [f"predicted {p}\ncorrect {c}" for p, c in zip(predicted or (), correct or (), strict=True)]
    beside = max(map(_width, "\n".join(answers).split("\n"))) + MARGIN if answers else 0
    wide = max(MARGIN + sum(width + MARGIN for width in widths.values()) + beside, 400)
    asked = textwrap.wrap(question, max(20, int(wide / 10)))
    top, high = MARGIN + LINE * (len(asked) + 1), first.shape[2] * scale + MARGIN
    sheet = Image.new("RGB", (wide, top + high * len(first)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN // 2), "\n".join(asked), fill=BLACK, font=LARGE, spacing=LINE - 18)
    left = MARGIN
    for name, samples in rows.items():
        draw.text((left, top - LINE // 2), captions[name], fill=BLACK, font=SMALL, anchor="lm")
        for row, picture in enumerate(samples):
            sheet.paste(picture, (left, top + row * high))
        left += widths[name] + MARGIN
    for row, answer in enumerate(answers):
        colour = GREEN if predicted and correct and predicted[row] == correct[row] else RED
        draw.text((left, top + row * high + (high - MARGIN) / 2), answer, fill=colour, font=SMALL, anchor="lm")
    return np.asarray(sheet)


def _frames(sample: NDArray[np.uint8], frame_stack: int, scale: int) -> Image.Image:
    """The frames of one picture (frame_stack * C, H, W) side by side, enlarged."""
    _, height, width = sample.shape
    frames = sample.reshape(frame_stack, -1, height, width).transpose(0, 2, 3, 1)
    strip = Image.new("RGB", (frame_stack * (width * scale + GAP) - GAP, height * scale), "white")
    for i, frame in enumerate(np.broadcast_to(frames, (frame_stack, height, width, 3))):
        enlarged = Image.fromarray(frame).resize((width * scale, height * scale), Image.Resampling.NEAREST)
        strip.paste(enlarged, (i * (width * scale + GAP), 0))
    return strip


def _width(text: str) -> int:
    """Pixels of a line of small text."""
    return round(SMALL.getlength(text)) + 1
