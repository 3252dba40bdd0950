"""The sheet that shows what a head sees: which frame stands where, and the colour of an answer."""

import numpy as np
import pytest

from analysis.picture import GREEN, RED, TEXT, WHITE, contact_sheet


@pytest.mark.parametrize(("height", "scale"), [(20, 5), (28, 4), (84, 2)])
def test_frames_stand_in_order_and_answers_have_their_colour(height: int, scale: int) -> None:
    stacks, width = 3, 20
    inputs = np.arange(stacks * 2 * 3, dtype=np.uint8).reshape(stacks, 6, 1, 1) * np.ones((height, width), np.uint8)
    sheet = contact_sheet(inputs, ["a", "b", "c"], ["a", "x", "c"], frame_stack=2)
    names = contact_sheet(inputs, ["a", "b", "c"], None, frame_stack=2)
    assert sheet.shape == names.shape == (stacks * height * scale, 2 * width * scale + TEXT, 3)
    for row in range(stacks):
        for column in range(2):
            pixel = sheet[(row * height + 5) * scale, (column * width + 5) * scale]
            assert pixel.tolist() == [row * 6 + column * 3 + colour for colour in range(3)]
        for picture, colours in ((sheet, {GREEN if row != 1 else RED}), (names, {WHITE})):
            text = picture[row * height * scale : (row + 1) * height * scale, 2 * width * scale :]
            assert not text[[0, -1]].any()  # all of it fits
            assert {tuple(pixel) for pixel in text.reshape(-1, 3).tolist()} & {GREEN, RED, WHITE} == colours


def test_pictures_of_a_name_stand_side_by_side() -> None:
    inputs = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 20, 30), np.uint8)
    sheet = contact_sheet(inputs, ["seen", "true"] * 3, None, frame_stack=1)
    assert sheet.shape == (2 * 100, 3 * 150 + TEXT, 3)
    assert sheet[50::100, 75:450:150, 0].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert sheet[:100, 450:].any()
    assert sheet[100:, 450:].any()
