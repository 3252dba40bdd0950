"""Examples of the tasks on images: the pictures, the answers and the right ones, made once more step by step."""

from functools import partial

import numpy as np
import pytest
import torch
from aux_help import noise
from pretext_help import ahead, colours_of
from view_help import SMALL, move, tiny, two_views, unit

from aux_tasks.image.denoising import NOISES
from aux_tasks.image.relative_position import DIRECTIONS
from aux_tasks.parts.colour import from_lab, to_lab
from aux_tasks.parts.patches import normalize

B, SIZE = 11, 24
EIGHT = [str(i) for i in range(8)]


def chosen(images, said):
    return torch.stack([images[int(k)] for k in said])


def numbers(scores) -> list[str]:
    return [str(int(k)) for k in scores.argmax(1)[:8]]


def pixels(decoded):
    return ((decoded[:4] + 0.5) * 256).clamp(0, 255).to(torch.uint8)


def pictures(**named):
    """Without answers."""
    return named, None, None


def joined(patches, cells):
    """Patches (N, cells * cells, C, h, w) side by side, at the size of the input."""
    rows = [torch.cat(patches[:, cells * i : cells * (i + 1)].unbind(1), dim=3) for i in range(cells)]
    index = torch.arange(SIZE) * cells * patches.shape[3] // SIZE
    return torch.cat(rows, dim=2)[:, :, index][..., index].byte()


def views(task, encoder, obs):
    pair = torch.cat(two_views(task, obs))
    embedding = unit(task.embed(pair, encoder))
    first, second = pair.to(torch.uint8).chunk(2)
    said = numbers(embedding[:B] @ embedding[B:].T)
    return {"view": first[:8], "its second view": second[:8], "chosen": chosen(second, said)}, said, EIGHT


def counting(task, encoder, obs):
    images = task._views(obs)
    whole, parts = task._counts(images, encoder)
    distance = (parts[:, None] - whole).square().sum(2)
    said, images = numbers(-distance), images.to(torch.uint8)
    quarters = {f"quarter {k}": images[:8, k] for k in range(1, 5)}
    return {"picture": images[:8, 0], **quarters, "chosen": chosen(images[:, 0], said)}, said, EIGHT


def exemplar(task, encoder, obs):
    task.filled[()] = 5
    task.bank[:5] = obs[:5]
    label = torch.randint(2**62, (8,), generator=task.generator) % 5
    inputs = task.views(task.bank[label], task.generator, task.frame_stack)
    said = numbers(task.head(encoder(inputs))[:, :5])
    right = [str(int(k)) for k in label]
    return (
        {"view": inputs.to(torch.uint8), "its picture": chosen(obs, right), "predicted": chosen(obs, said)},
        said,
        right,
    )


def rotation(task, encoder, obs, *, every):
    label = torch.arange(8) % 4 if every else torch.randint(4, (8,), generator=task.generator)
    of = torch.arange(8) // 4 if every else torch.arange(8)
    inputs = torch.stack([torch.rot90(obs[i], int(k), dims=(1, 2)) for i, k in zip(of, label, strict=True)])
    answers = (task.head(encoder(inputs)).argmax(1), label)
    return {"input": inputs}, *([str(90 * int(k)) for k in answer] for answer in answers)


def denoising(task, encoder, obs):
    corrupted = task.corrupt(obs[:4])
    return pictures(clean=obs[:4], corrupted=corrupted, predicted=pixels(task.decoder(encoder(corrupted))))


def context_encoder(task, encoder, obs):
    missing, holed = task._holed(obs[:4])
    filled = torch.where(missing, pixels(task.decoder(encoder(holed))), obs[:4])
    return pictures(whole=obs[:4], input=holed, predicted=filled)


def split_brain(task, encoder, obs):
    inputs, _ = task.split(obs[:4])
    second, first = (decode(encoder(half)) for decode, half in zip(task.decoders, inputs, strict=True))
    if obs.shape[1] == 4:
        return pictures(picture=obs[:4], predicted=pixels(torch.cat([first, second], dim=1)))
    lab = (first[:, :, None] + 0.5) * 100, second.unflatten(1, (2, 2)) * 100
    return pictures(picture=obs[:4], predicted=from_lab(*lab).round().to(torch.uint8))


def colorization(task, encoder, obs):
    lightness, colour = to_lab(obs[:4, :, ::3, ::3]).split([1, 2], dim=2)
    share = (task.decoder(encoder(task.colourless(obs[:4]))).double() / 0.38).softmax(1)
    mean = (share[:, :, None] * task.bins[..., None, None]).sum(1).float()[:, None]
    shades = {"lightness": torch.zeros_like(colour), "predicted": mean, "true": colour}
    return pictures(**{name: from_lab(lightness, ab).round().byte() for name, ab in shades.items()})


def bigan(task, encoder, obs):
    code = task.to_latent(encoder(obs))
    z = torch.rand(B, task.latent_dim, generator=task.generator) * 2 - 1
    return pictures(picture=obs[:4], rebuilt=pixels(task.generate(code)), invented=pixels(task.generate(z)))


def jigsaw(task, encoder, obs):
    tiles, label = task._tiles(obs[:8]), task._labels(8, 1)
    laid = [normalize(nine)[order] for nine, order in zip(tiles, task.permutations[label[:, 0]], strict=True)]
    said = numbers(task._logits(tiles, label, encoder)[:, 0])
    solved = []
    for nine, number in zip(laid, said, strict=True):
        picture = torch.zeros_like(nine)
        for position, tile in enumerate(task.permutations[int(number)]):
            picture[tile] = nine[position]
        solved.append(picture)
    shown = {"puzzle": torch.stack(laid), "solution": normalize(tiles), "predicted": torch.stack(solved)}
    return {name: joined(nines, 3) for name, nines in shown.items()}, said, [str(int(i)) for i in label]


def relative_position(task, encoder, obs):
    inputs = task._inputs(task.grid.cut(obs[:1], task.generator))[0]
    z = encoder(inputs)
    said = [DIRECTIONS[int(task.head(torch.cat([z[4], z[k]])[None]).argmax())] for k in (0, 1, 2, 3, 5, 6, 7, 8)]
    neighbours = inputs[[0, 1, 2, 3, 5, 6, 7, 8]].to(torch.uint8)
    shown = {"picture": obs[:1].repeat(8, 1, 1, 1), "centre": inputs[[4] * 8].to(torch.uint8), "neighbour": neighbours}
    return shown, said, [*DIRECTIONS]


def cpc_image(task, encoder, obs):
    patches = normalize(task.grid.cut(obs, task.generator))
    latents = task.latents(patches, encoder)
    context, target = task.context(latents), task.target(latents).flatten(0, 2)
    predicted = torch.full_like(patches, 127.5)
    for b, i, j in np.ndindex(4, 3, 5):
        own = (target @ task.predictors[0](context[b, i, j])).argmax()
        predicted[b, 5 * (i + 2) + j] = patches.flatten(0, 1)[own]
    return pictures(picture=obs[:4], patches=joined(patches[:4], 5), predicted=joined(predicted[:4], 5))


TWO, STACK, COLOUR = ((2, SIZE, SIZE), 2), ((4, 12, 14), 4), ((6, 12, 14), 2)
CASES = {name: (views, *TWO, options) for name, options in SMALL.items()}
CASES |= {f"denoising/{kind}": (denoising, *COLOUR, {"noise": kind}) for kind in NOISES}
CASES |= {
    "counting": (counting, *TWO, {}),
    "exemplar": (exemplar, *TWO, {"classes": 12}),
    "rotation": (partial(rotation, every=False), *TWO, {}),
    "rotation/all": (partial(rotation, every=True), *TWO, {"all_rotations": True}),
    "context_encoder": (context_encoder, *COLOUR, {}),
    "split_brain/time": (split_brain, *STACK, {}),
    "split_brain/colour": (split_brain, *COLOUR, {}),
    "colorization": (colorization, (3, 8, 8), 1, {"bin_size": 40.0, "output_stride": 3}),
    "bigan": (bigan, *COLOUR, {}),
    "jigsaw": (jigsaw, *TWO, {"patch_ratio": 1.0}),
    "relative_position": (relative_position, *TWO, {}),
    "cpc_image": (cpc_image, *TWO, {"patch_ratio": 1.0, "cells": 5, "steps": 2}),
}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_examples_step_by_step(name):
    again, shape, frame_stack, options = CASES[name]
    task, encoder = tiny(name.partition("/")[0], shape, frame_stack, **options)
    move(task)
    obs = noise(B, *shape) // torch.arange(1, B + 1).view(B, 1, 1, 1).byte()
    pictures, predicted, correct = ahead(task, again, task, encoder, obs)
    shown = task.examples(colours_of(obs), encoder)
    assert list(shown.pictures) == list(pictures)
    assert all(torch.equal(shown.pictures[name], pixels) for name, pixels in pictures.items())
    assert shown.predicted == predicted
    assert shown.correct == correct
