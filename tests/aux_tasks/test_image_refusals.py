"""Options and observations that do not fit a task on images are refused, with what would fit."""

import re

import pytest
from aux_help import noise
from pretext_help import loss_of
from view_help import tiny

IMAGE = (1, 24, 24)
REFUSED = [  # task, shape, frame stack, options, message
    ("simclr", IMAGE, 1, {"views": "shfit"}, "views must be one of shift, digits, photo, got 'shfit': did you mean 's"),
    ("simclr", IMAGE, 1, {"temperature": 0}, "temperature must be above 0, got 0"),
    ("simclr", IMAGE, 1, {"temperature": -1.0}, "temperature must be above 0, got -1.0"),
    ("moco", IMAGE, 1, {"projection": "mpl"}, "projection must be one of linear, mlp, got 'mpl': did you mean 'mlp'"),
    ("moco", IMAGE, 1, {"queue": 0}, "queue must be at least 1, got 0"),
    ("moco", IMAGE, 1, {"temperature": 0}, "temperature must be above 0, got 0"),
    ("exemplar", IMAGE, 1, {"classes": 1}, "classes must be at least 2, got 1"),
    ("exemplar", (2, 9, 11), 2, {"patch_size": 1}, "patch_size must be 2 to 9, got 1"),
    ("exemplar", (2, 9, 11), 2, {"patch_size": 10}, "patch_size must be 2 to 9, got 10"),
    ("rotation", (4, 10, 12), 4, {}, "rotation needs square observations, got 10x12"),
    ("bigan", IMAGE, 1, {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
    ("denoising", IMAGE, 1, {"noise": "gausian"}, "did you mean 'gaussian'"),
    ("denoising", IMAGE, 1, {"level": 0.0}, "level must be in (0, 1), got 0.0"),
    ("denoising", IMAGE, 1, {"level": 1.0}, "level must be in (0, 1), got 1.0"),
    ("denoising", IMAGE, 1, {"emphasis": 1.5}, "emphasis must be in [0, 1], got 1.5"),
    ("context_encoder", IMAGE, 1, {"region": "center"}, "did you mean 'centre'"),
    ("context_encoder", IMAGE, 1, {"mask_ratio": 0.0}, "mask_ratio must be in (0, 1), got 0.0"),
    ("context_encoder", IMAGE, 1, {"mask_ratio": 1.0}, "mask_ratio must be in (0, 1), got 1.0"),
    ("context_encoder", IMAGE, 1, {"grain": 1}, "grain must be at least 2, got 1"),
    ("context_encoder", IMAGE, 1, {"adversarial": 1.0}, "adversarial must be in [0, 1), got 1.0"),
    ("split_brain", IMAGE, 1, {}, "needs colour observations or a frame_stack of at least 2"),
    ("split_brain", (3, 8, 8), 1, {"halves": "time"}, "needs colour observations or a frame_stack of at least 2"),
    ("split_brain", (4, 8, 8), 4, {"halves": "colour"}, "halves=colour needs colour observations"),
    ("split_brain", (4, 8, 8), 4, {"halves": "color"}, "did you mean 'colour'"),
    ("split_brain", (4, 8, 8), 2, {}, "frames must be gray (1 channel) or colour (3), got 2 channels a frame"),
    ("colorization", (2, 8, 8), 1, {}, "frames must be gray (1 channel) or colour (3), got 2 channels a frame"),
    ("colorization", (3, 8, 8), 1, {"bin_size": 0.0}, "bin_size must be above 0, got 0.0"),
    ("colorization", (3, 8, 8), 1, {"uniform": 0.0}, "uniform must be in (0, 1], got 0.0"),
    ("colorization", (3, 8, 8), 1, {"uniform": 1.5}, "uniform must be in (0, 1], got 1.5"),
    ("colorization", (3, 8, 9), 1, {"output_stride": 9}, "output_stride must be 1 to 8, got 9"),
    ("counting", IMAGE, 1, {"counts": 0}, "counts must be at least 1, got 0"),
    ("counting", IMAGE, 1, {"margin": 0.0}, "margin must be above 0, got 0.0"),
    ("counting", IMAGE, 1, {"window": 1.2}, "window must be in (0, 1], got 1.2"),
    ("counting", IMAGE, 1, {"gray": -1.0}, "gray must be in [0, 1], got -1.0"),
    ("jigsaw", IMAGE, 1, {"cells": 1}, "cells must be at least 2, got 1"),
    ("jigsaw", IMAGE, 1, {"cells": 2, "permutations": 25}, "permutations of 2x2 tiles must be 2 to 24, got 25"),
    ("jigsaw", IMAGE, 1, {"permutations": 1}, "permutations of 3x3 tiles must be 2 to 1000, got 1"),
    ("jigsaw", IMAGE, 1, {"puzzles": 0}, "puzzles must be at least 1, got 0"),
    ("jigsaw", IMAGE, 1, {"colour_jitter": -1}, "colour_jitter must be at least 0, got -1"),
    ("jigsaw", IMAGE, 1, {"gray": 2.0}, "gray must be in [0, 1], got 2.0"),
    ("jigsaw", (1, 20, 28), 1, {"cells": 8}, "8x8 patches of 20x28 pixels are smaller than 3x3: use fewer"),
    ("relative_position", IMAGE, 1, {"coarse": 1.1}, "coarse must be in [0, 1], got 1.1"),
    ("relative_position", IMAGE, 1, {"patch_ratio": 0.0}, "patch_ratio must be in (0, 1], got 0.0"),
    ("relative_position", IMAGE, 1, {"patch_ratio": 0.2}, "3x3 patches of 24x24 pixels are smaller than 3x3"),
    ("cpc_image", IMAGE, 1, {"cells": 2}, "steps must be at least 1 and at most cells - 2, got 3 of 2 cells"),
    ("cpc_image", IMAGE, 1, {"steps": 0}, "steps must be at least 1"),
    ("cpc_image", IMAGE, 1, {"layers": 0}, "layers must be at least 1, got 0"),
    ("cpc_image", IMAGE, 1, {"gray": 1.5}, "gray must be in [0, 1], got 1.5"),
    ("cpc_image", IMAGE, 1, {"cells": 20}, "20x20 patches of 24x24 pixels are smaller than 3x3"),
]


@pytest.mark.parametrize(("name", "shape", "frame_stack", "options", "message"), REFUSED)
def test_what_does_not_fit_is_refused(name, shape, frame_stack, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tiny(name, shape, frame_stack, **options)


def test_a_queue_shorter_than_the_batch_is_refused():
    task, encoder = tiny("moco", queue=3)
    with pytest.raises(ValueError, match=r"^aux\.moco\.options\.queue=3: must be at least the batch size, 4$"):
        loss_of(task, noise(4, 2, 9, 11), encoder)
