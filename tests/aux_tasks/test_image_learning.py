"""Tasks on images are learned from content, not without it, and not when no gradient moves the weights."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import (
    balls,
    build_task,
    colours_of,
    cut,
    digits,
    draw_from,
    measure,
    patch_encoder,
    photos,
    scrambled,
    small_encoder,
    train_on,
)
from torch import nn
from view_help import SMALL

from aux_tasks.parts.colour import from_lab
from encoders import Encoder
from replay import Batch


def stacks(batch: int, seed: int = 0, *, torn: bool = False) -> Batch:
    """Four frames of a bouncing ball; or, torn, the older ones of one and the newer ones of another."""
    obs = balls(64, 4, 12)[:, :, 0][torch.randint(64, (batch,), generator=generator(seed))]
    newer = obs[torch.randperm(batch, generator=generator(seed))] if torn else obs
    return batch_of(torch.cat([obs[:, :2], newer[:, 2:]], dim=1))


def tones(batch: int, seed: int = 0, *, torn: bool = False) -> Batch:
    """Tiles that are warm where they are light; or, torn, where another image's are."""
    light = torch.rand(batch, 1, 1, 3, 3, generator=generator(seed)).round()
    light = light.repeat_interleave(4, 3).repeat_interleave(4, 4)
    warm = light.roll(1, 0) if torn else light
    return batch_of(from_lab(40 + 20 * light, (40 * warm - 20).expand(-1, -1, 2, -1, -1)).round().to(torch.uint8))


def two_worlds(batch: int, seed: int, *, torn: bool = False) -> Batch:
    """A bright stripe left or right; where it is, or else chance, tells the hue of the whole image."""
    right = torch.rand(batch, generator=generator(seed)) < 0.5
    purple = torch.rand(batch, generator=generator(seed + 1)) < 0.5 if torn else right
    lightness = torch.full((batch, 1, 1, 8, 8), 50.0)
    lightness[~right, ..., :2], lightness[right, ..., -2:] = 75, 75
    colour = torch.tensor([[30.0, 25.0], [30.0, -25.0]])[purple.long()][:, None, :, None, None]
    return colours_of(from_lab(lightness, colour.expand(-1, -1, -1, 8, 8)).round().to(torch.uint8))


HELD_OUT = 999  # a step that is none of the training


def digits_of(size: int, train: tuple[int, int], held_out: tuple[int, int], batch: int = 32):
    """Handwritten digits; those held out may be those of the training."""

    def draw(step: int) -> Batch:
        known = draw_from(digits(*train, size), batch)
        return batch_of(digits(*held_out, size)) if step == HELD_OUT else known(step)

    return draw


def shuffled_digits(size: int, step: int) -> Batch:
    return batch_of(scrambled(digits(*((1500, 1628) if step == HELD_OUT else (0, 64)), size), seed=step))


def photo(step: int) -> Batch:
    return colours_of(photos(256, seed=2)) if step == HELD_OUT else draw_from(photos(1024))(step)


def drawn(make, torn: bool, step: int) -> Batch:
    return make(64 if step != HELD_OUT else 200, 100 * step, torn=torn)


def repeated(size: int, digit: int, batch: int, step: int) -> Batch:
    return batch_of(digits(digit, digit + 1, size).expand(batch, -1, -1, -1).contiguous())


class Source(NamedTuple):
    encoder: Callable[[], Encoder]
    draw: Callable[[int], Batch]  # of a step
    lr: float = 3e-3
    frame_stack: int = 1


FEW, MANY = (0, 64), (1400, 1797)
PIXELS, VIEWS = partial(tiny_encoder, (1, 12, 12), 32), partial(tiny_encoder, (1, 16, 16), 32)
SOURCES = {
    "digits": Source(patch_encoder, digits_of(24, FEW, (1500, 1628))),
    "known digits": Source(patch_encoder, digits_of(24, FEW, FEW)),
    "scrambled": Source(patch_encoder, partial(shuffled_digits, 24)),
    "noise": Source(patch_encoder, lambda step: batch_of(noise(32, 1, 24, 24, seed=step))),
    "one image": Source(patch_encoder, partial(repeated, 24, 0, 32)),
    "small digits": Source(PIXELS, digits_of(12, FEW, FEW, 64)),
    "small scrambled": Source(PIXELS, partial(shuffled_digits, 12)),
    "views": Source(VIEWS, digits_of(16, (0, 1000), (1000, 1064), 64)),
    "one view": Source(VIEWS, partial(repeated, 16, 3, 64)),
    "forty digits": Source(VIEWS, digits_of(16, (0, 40), (0, 40), 40), 5e-3),
    "stacks": Source(partial(tiny_encoder, (4, 12, 12), 32), partial(drawn, stacks, False), frame_stack=4),
    "torn stacks": Source(partial(tiny_encoder, (4, 12, 12), 32), partial(drawn, stacks, True), frame_stack=4),
    "tones": Source(partial(tiny_encoder, (3, 12, 12), 32), partial(drawn, tones, False)),
    "torn tones": Source(partial(tiny_encoder, (3, 12, 12), 32), partial(drawn, tones, True)),
    "worlds": Source(partial(tiny_encoder, (3, 8, 8), 16), partial(drawn, two_worlds, False), 1e-2),
    "torn worlds": Source(partial(tiny_encoder, (3, 8, 8), 16), partial(drawn, two_worlds, True), 1e-2),
    "many digits": Source(partial(small_encoder, (1, 28, 28)), digits_of(28, (0, 1400), MANY), 1e-3),
    "64 of many digits": Source(partial(small_encoder, (1, 28, 28)), digits_of(28, (0, 1400), (1400, 1464), 24), 1e-3),
    "photo": Source(partial(small_encoder, (3, 32, 32)), photo, 1e-3),
}
OPTIONS: dict[str, dict[str, object]] = {name: {"views": "digits", **options} for name, options in SMALL.items()}
OPTIONS |= {
    "exemplar": {"classes": 32},
    "relative_position": {"hidden": 64},
    "jigsaw": {"hidden": 64, "permutations": 10},
    "cpc_image": {"cells": 4, "steps": 2, "embedding_dim": 32},
    "denoising": {"channels": 16},
    "context_encoder": {"channels": 16},
    "split_brain": {"channels": 16},
    "colorization": {"bin_size": 40.0, "output_stride": 7, "channels": 16},  # the positions predicted are the corners
}


def learned(name: str, source: str, updates: int, *, frozen: bool = False, **options: object) -> dict[str, float]:
    """Metrics on samples held out, `gain` of them the accuracy over chance; a `frozen` encoder does not learn."""
    make, draw, lr, frame_stack = SOURCES[source]
    encoder = make()
    task = build_task(name, encoder, frame_stack, **options or OPTIONS.get(name, {}))
    train_on(task, cut(encoder) if frozen else encoder, draw, steps=updates, lr=lr)
    found = measure(task, encoder, draw(HELD_OUT), draws=8)
    ratios = [value for key, value in found.items() if key.endswith("error_ratio")]
    found |= {"least": min(ratios), "most": max(ratios)} if ratios else {}
    return found | {"gain": found["accuracy"] / found["chance"]} if "accuracy" in found else found


Bounds = dict[str, tuple[float, float]]
MOST = float("inf")


def gain(low: float, high: float = MOST) -> Bounds:
    return {"gain": (low, high)}


def errors(low: float, high: float = MOST) -> Bounds:
    return {"least": (low, MOST), "most": (0, high)}


BLIND, UNTOLD = gain(0, 4) | errors(0.9), gain(0, 1.2) | {"lookup_accuracy": (0, 0.6)}
TOLD = gain(1.9) | {"chance": (0.499, 0.501), "lookup_accuracy": (0, 0.6)}  # which no table of lightness knows
CONTENT: list[tuple[str, str, str, int, Bounds, Bounds, Bounds]] = [  # after updates, after none, without content
    ("relative_position", "digits", "scrambled", 60, gain(2), gain(0, 1.6), gain(0.8, 1.2)),
    ("jigsaw", "digits", "scrambled", 40, gain(8), gain(0, 2), gain(0.7, 1.3)),
    ("cpc_image", "known digits", "noise", 40, gain(10), gain(0, 4), gain(0, 4)),
    # But for the random sampler, images that are all the same would never cost less than the margin.
    ("counting", "known digits", "one image", 80, gain(5) | errors(0, 0.6), BLIND, BLIND),
    ("denoising", "small digits", "small scrambled", 120, errors(0, 0.5), errors(0.9), errors(0.9)),
    ("context_encoder", "small digits", "small scrambled", 120, errors(0, 0.5), errors(0.9), errors(0.9)),
    ("split_brain", "stacks", "torn stacks", 120, errors(0, 0.7), errors(0.9), errors(0.9)),
    ("split_brain", "tones", "torn tones", 120, errors(0, 0.7), errors(0.9), errors(0.9)),
    ("colorization", "worlds", "torn worlds", 100, TOLD, UNTOLD, UNTOLD),
]


def check(found: dict[str, float], bounds: Bounds) -> None:
    for key, (low, high) in bounds.items():
        assert low <= found[key] <= high, f"{key} is {found[key]}"


@pytest.mark.parametrize("case", ["learned", "untrained", "without content"])
@pytest.mark.parametrize("row", CONTENT, ids=lambda row: f"{row[0]}-{row[1]}")
def test_it_is_learned_from_content_by_training(row, case):
    name, source, destroyed, updates, learnt, untrained, blind = row
    images, steps = destroyed if case == "without content" else source, 0 if case == "untrained" else updates
    options = {"window": 1.0} if images == "one image" else {}
    bounds = {"learned": learnt, "untrained": untrained, "without content": blind}[case]
    check(learned(name, images, steps, **options), bounds)


@pytest.mark.parametrize("name", SMALL)
def test_views_are_told_apart_and_an_encoder_that_cannot_move_learns_less(name):
    full, frozen = (learned(name, "views", 80, frozen=still) for still in (False, True))
    assert full["gain"] > 3
    assert full["loss"] < frozen["loss"]
    check(learned(name, "one view", 30), gain(0, 2.7))  # what tells samples apart now would be no content


def test_remembered_digits_are_told_apart_by_training_alone_and_not_where_all_are_alike():
    check(learned("exemplar", "forty digits", 120), gain(9.6) | {"filled": (32, 32)})
    check(learned("exemplar", "forty digits", 1), gain(0, 4.8))
    encoder, same = VIEWS(), digits(3, 4, 16).expand(32, -1, -1, -1)
    task = build_task("exemplar", encoder, classes=32)
    task.bank[:32], task.filled[()] = same, 32  # the bank itself would refuse them
    train_on(task, encoder, lambda step: batch_of(same), steps=60, lr=5e-3)
    found = measure(task, encoder, batch_of(same), draws=16)
    assert found["accuracy"] < 3.2 * found["chance"]


SPLIT = {"colour_error_ratio": (0, 0.8), "lightness_error_ratio": (0, 0.5)}
SLOW: list[tuple[str, str, int, Bounds, dict[str, object]]] = [
    ("denoising", "many digits", 200, errors(0, 0.5) | {"copy_ratio": (0, 1)}, {"channels": 32}),
    ("context_encoder", "many digits", 200, errors(0, 0.7), {"adversarial": 0.0}),
    ("context_encoder", "many digits", 200, errors(0, 0.7), {"adversarial": 0.001}),
    ("counting", "64 of many digits", 75, gain(5) | errors(0, 0.7) | {"active_counts": (0.5, 1)}, {"counts": 64}),
    ("cpc_image", "64 of many digits", 60, gain(5), {"cells": 4, "steps": 2}),
    ("jigsaw", "many digits", 60, gain(24), {"permutations": 30}),
    ("relative_position", "many digits", 60, gain(2.8), {"hidden": 256}),
    ("split_brain", "photo", 200, SPLIT, {"channels": 32}),
    ("colorization", "photo", 300, gain(2.5), {"bin_size": 20.0}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source", "updates", "bounds", "options"), SLOW)
def test_what_the_small_encoder_learns(name, source, updates, bounds, options):
    check(learned(name, source, updates, **options), bounds)


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True])
def test_codes_come_to_invert_the_generator_on_unseen_digits_unless_they_are_of_other_images(torn):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU())
    encoder = Encoder(trunk, nn.Linear(512, 64), (1, 8, 8))
    task = build_task("bigan", encoder, latent_dim=16)
    draw = digits_of(8, (0, 1400), MANY, 64)
    before = measure(task, encoder, draw(HELD_OUT), draws=1)
    hook = encoder.register_forward_hook(lambda _, __, features: features.roll(1, 0) if torn else features)
    train_on(task, encoder, draw, steps=2000, lr=2e-4)
    hook.remove()
    after = measure(task, encoder, draw(HELD_OUT), draws=1)
    assert before["accuracy"] < 2 * before["chance"]
    assert after["accuracy"] < 4 * after["chance"] if torn else after["accuracy"] > 100 * after["chance"]
    assert torn or after["error_ratio"] < 0.8
