"""Pictures for people: frames of observations, panels with captions, sheets of what a head sees and answers."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels: TypeAlias = NDArray[np.uint8]
GREEN, RED, BLACK = (0, 130, 50), (200, 30, 30), (0, 0, 0)
GAP = 8  # pixels of white between panels
MARGIN, FRAME_GAP = 16, 4  # on a sheet: pixels of white between pictures, and between the frames of one
HEIGHT = 100  # pixels of a picture, at least
SMALL, LARGE = ImageFont.load_default(16), ImageFont.load_default(18)
LINE = 24  # pixels of a line of text


def rgb_frames(obs: Pixels, frame_stack: int) -> Pixels:
    """The frames (frame_stack, H, W, 3) of an observation (frame_stack * C, H, W), grey or RGB, oldest first."""
    _, height, width = obs.shape
    frames = obs.reshape(frame_stack, -1, height, width).transpose(0, 2, 3, 1)
    return np.broadcast_to(frames, (frame_stack, height, width, 3))


def panel(image: Pixels, size: int, caption: str) -> Pixels:
    """An image (H, W, 3), enlarged to size x size by nearest neighbours, under its caption.

    Returns:
        (size + bar, size, 3).
    """
    bar = max(14, size // 14)
    canvas = Image.new("RGB", (size, size + bar), "white")
    canvas.paste(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST), (0, bar))
    font = ImageFont.load_default(size=bar * 0.75)
    ImageDraw.Draw(canvas).text((0, bar // 2), caption, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def side_by_side(pictures: Sequence[Pixels], gap: int = GAP) -> Pixels:
    """One picture of several of the same height, `gap` white pixels apart."""
    white = np.full((len(pictures[0]), gap, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (white, picture)][1:], axis=1)


def above_each_other(pictures: Sequence[Pixels]) -> Pixels:
    """One picture of several of the same width."""
    return side_by_side([picture.swapaxes(0, 1) for picture in pictures]).swapaxes(0, 1)


def contact_sheet(
    question: str,
    pictures: Mapping[str, Pixels],
    predicted: Sequence[str] | None = None,
    correct: Sequence[str] | None = None,
    frame_stack: int = 1,
) -> Pixels:
    """A sheet with a question and a row for each sample: its pictures, and the predicted and correct answers.

    Args:
        question: the heading, such as what a head predicts.
        pictures: by caption, (K, frame_stack * C, H, W) of K samples, C 1 or 3.
        predicted: K answers, written in green if correct, else in red; None if the pictures are the answers.
        correct: K answers.
        frame_stack: frames in a picture, oldest first.

    Returns:
        (H', W', 3) image on white.
    """
    first = next(iter(pictures.values()))
    scale = max(2, round(HEIGHT / first.shape[2]))
    rows = {
        name: [_enlarged(rgb_frames(sample, frame_stack), scale) for sample in samples]
        for name, samples in pictures.items()
    }
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


def _enlarged(frames: Pixels, scale: int) -> Image.Image:
    """Frames (F, H, W, 3) side by side, each pixel as a square of scale x scale pixels."""
    return Image.fromarray(side_by_side([*frames.repeat(scale, 1).repeat(scale, 2)], FRAME_GAP))


def _width(text: str) -> int:
    """Width in pixels of a line of small text."""
    return round(SMALL.getlength(text)) + 1
