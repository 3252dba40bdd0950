"""SODA: features that a picture mixed into the observation changes less."""

import torch
import torch.nn.functional as F
from aux_help import generator
from pretext_help import build_task, colours_of, patch_encoder, photos, train_on

from encoders import Encoder
from encoders.augment import color_fields, overlay
from replay import Batch


def seen(step: int) -> Batch:
    """Crops of a photograph; `likeness` is of another one."""
    return colours_of(photos(64, 24, seed=2 * step))


def likeness(encoder: Encoder) -> float:
    """Cosine of held-out observations with themselves behind unseen pictures, less that with the others."""
    obs = photos(64, 24, seed=3)
    mixed = overlay(obs, color_fields(64, 24, 24, generator(9)), generator(8))
    with torch.no_grad():
        clean, behind = (encoder(o) - encoder(o).mean(0) for o in (obs, mixed))
    cosine = F.normalize(behind) @ F.normalize(clean).T
    return float(cosine.diagonal().mean() - cosine.mean())


def test_the_encoder_learns_to_see_through_unseen_pictures():
    encoder = patch_encoder(3, 24, features=64)
    task, before = build_task("soda", encoder, 1, hidden=64), likeness(encoder)
    train_on(task, encoder, seen, steps=90)
    assert likeness(encoder) > before + 0.1


def test_pairs_of_different_observations_teach_nothing():
    encoder = patch_encoder(3, 24, features=64)
    task, before, draw = build_task("soda", encoder, 1, hidden=64), likeness(encoder), generator(4)
    target = task.target
    task.target = lambda clean: target(clean)[torch.randperm(len(clean), generator=draw)]
    train_on(task, encoder, seen, steps=90)
    assert likeness(encoder) < before
