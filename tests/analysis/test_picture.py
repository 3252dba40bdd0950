"""The sheet that shows what a head sees: which picture and which answer stands where."""

import numpy as np
import pytest

from analysis.picture import GREEN, MARGIN, RED, contact_sheet

WIDTH, SAMPLES = 20, 3


def places(sheet: np.ndarray, shade: int) -> list[tuple[int, int]]:
    """Upper left corner and size of what has this colour, which no text has."""
    rows, columns = np.nonzero((sheet == (shade, 0, 250)).all(2))
    return [(rows.min(), columns.min()), (np.ptp(rows) + 1, np.ptp(columns) + 1)]


@pytest.mark.parametrize(("height", "scale"), [(20, 5), (28, 4), (84, 2)])
@pytest.mark.parametrize("answers", [(None, None), (["a", "b", "c"], ["a", "x", "c"])])
def test_pictures_of_a_sample_stand_in_a_row_and_apart(height: int, scale: int, answers: tuple) -> None:
    shades = 40 + 10 * np.arange(2 * SAMPLES * 2, dtype=np.uint8).reshape(2, SAMPLES, 2)  # of names, samples, frames
    pixels = np.zeros((*shades.shape, 3, height, WIDTH), np.uint8)
    pixels[:, :, :, 0], pixels[:, :, :, 2] = shades[..., None, None], 250
    first, second = pixels.reshape(2, SAMPLES, 6, height, WIDTH)
    sheet = contact_sheet("Which?", {"one": first, "another": second}, *answers, frame_stack=2)
    corners = {}
    for at in np.ndindex(shades.shape):
        corners[at], size = places(sheet, shades[at])
        assert size == (height * scale, WIDTH * scale)
    for name, sample, frame in np.ndindex(shades.shape):
        y, x = corners[name, sample, frame]
        assert y == corners[0, 0, 0][0] + sample * (height * scale + MARGIN)
        assert x == corners[name, 0, frame][1]
        assert (sheet[y : y + height * scale, x - 1] == 255).all()
        assert (sheet[y - 1, x : x + WIDTH * scale] == 255).all()
    for sample in range(SAMPLES):
        y, x = corners[1, sample, 1]
        beside = sheet[y : y + height * scale, x + WIDTH * scale :]
        green, red = ((beside == colour).all(2).any() for colour in (GREEN, RED))
        assert (green, red) == ((False, False) if answers[0] is None else (sample != 1, sample == 1))
        assert (beside[:, -1] == 255).all()  # all of it fits


def test_colours_are_shown_and_long_questions_are_wrapped() -> None:
    red = np.zeros((1, 3, 50, 50), np.uint8)
    red[:, 0] = 250
    short, long = (contact_sheet("Which? " * n, {"x": red}, None, None, frame_stack=1) for n in (1, 30))
    assert (short == (250, 0, 0)).all(2).sum() == 100 * 100
    assert short.shape[1] == long.shape[1]
    assert (long[:, -8:] == 255).all()
