"""The sheet that shows what a head sees: which frame stands where, and the colour of an answer."""

import numpy as np

from harness.picture import GREEN, RED, SCALE, contact_sheet


def test_frames_stand_in_order_and_answers_have_their_colour() -> None:
    stacks, height, width = 3, 40, 20
    inputs = np.arange(stacks * 2 * 3, dtype=np.uint8).reshape(stacks, 6, 1, 1) * np.ones((height, width), np.uint8)
    sheet = contact_sheet(inputs, ["a", "b", "c"], ["a", "x", "c"], frame_stack=2)
    for row in range(stacks):
        for column in range(2):
            pixel = sheet[(row * height + 5) * SCALE, (column * width + 5) * SCALE]
            assert pixel.tolist() == [row * 6 + column * 3 + colour for colour in range(3)]
        text = sheet[row * height * SCALE : (row + 1) * height * SCALE, 2 * width * SCALE :]
        drawn = {tuple(pixel) for pixel in text.reshape(-1, 3).tolist()}
        assert ((GREEN if row != 1 else RED) in drawn, (RED if row != 1 else GREEN) in drawn) == (True, False)
