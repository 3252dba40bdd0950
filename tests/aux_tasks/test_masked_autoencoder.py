"""A masked autoencoder against a slow version, and that it learns to fill in what is there to be known."""

import numpy as np
import pytest
import torch
from aux_help import noise
from control_help import array
from pretext_help import balls, build_task, colours_of, cut, draw_from, loss_of, measure, small_encoder, train_on

from aux_tasks.image.masked_autoencoder import patches, tokens_of, unpatched
from encoders.vit import positional_encoding

SIZE = 24


def made(channels: int = 1, size: int = SIZE, **options):
    encoder = small_encoder((channels, size, size), "vit")
    return encoder, build_task("masked_autoencoder", encoder, **options)


def test_hidden_patches_never_enter_the_encoder():
    encoder, _ = made(2)
    obs, shown = noise(1, 2, SIZE, SIZE), torch.tensor([[0, 4]])
    changed = obs.clone()
    changed[:, :, 8:16, :8] ^= 255  # patch 3
    tokens = [tokens_of(encoder).visible(encoder.normalised(each), shown) for each in (obs, changed)]
    assert torch.equal(*tokens)
    changed[:, :, :8, :8] ^= 255  # patch 0, of which patch 4 hears
    heard = tokens_of(encoder).visible(encoder.normalised(changed), shown)
    assert ((heard - tokens[0]).abs().amax(2) > 1e-5).all()


@pytest.mark.parametrize("size", [24, 20])  # a last row of patches that is filled up with zeros
def test_the_error_against_loops(size):
    encoder, task = made(2, size, mask_ratio=0.5)
    obs = noise(3, 2, size, size)
    state = task.generator.get_state()
    order = task.draw(3)
    task.generator.set_state(state)
    _, guess = task.predict(obs, order, encoder)
    output = loss_of(task, obs, encoder)
    padded = np.zeros((3, 2, 24, 24))
    padded[:, :, :size, :size] = array(obs) / 255
    target = np.zeros((3, 9, 2 * 64))
    for i, n in np.ndindex(3, 9):
        y, x = n // 3 * 8, n % 3 * 8
        patch = padded[i, :, y : y + 8, x : x + 8].ravel()
        target[i, n] = (patch - patch.mean()) / np.sqrt(patch.var() + 1e-6)
    errors, trivial = np.zeros(3), 0.0
    hidden = array(order)[:, task.shown :].astype(int)
    for i, places_hidden in enumerate(hidden):
        for n in places_hidden:
            errors[i] += ((array(guess)[i, n] - target[i, n]) ** 2).mean() / len(places_hidden)
            trivial += ((target[i, n] - target[:, n].mean(0)) ** 2).mean() / hidden.size
    torch.testing.assert_close(output.loss.detach(), torch.as_tensor(errors).float(), rtol=1e-4, atol=1e-5)
    assert float(output.metrics["error_ratio"]) == pytest.approx(errors.mean() / trivial, rel=1e-4)


def test_a_token_in_place_of_a_hidden_patch_knows_its_place_alone():
    encoder, task = made(mask_ratio=0.5)
    task.blocks = torch.nn.Identity()
    order = torch.arange(9)[None]
    _, tokens = task.predict(noise(1, 1, SIZE, SIZE), order, encoder)
    where = positional_encoding(torch.empty(1, tokens.shape[2], 3, 3)).flatten(1).T
    torch.testing.assert_close(tokens[0, task.shown :], where[task.shown :])
    assert ((tokens[0, : task.shown] - where[: task.shown]).abs().amax(1) > 0.1).all()


def test_patches_make_the_picture_again():
    obs = noise(2, 3, 20, 28).float()
    assert torch.equal(unpatched(patches(obs), obs.shape[1:]), obs)


def test_views_of_one_picture_attract_where_asked_for():
    obs = noise(8, 1, SIZE, SIZE)
    encoder, task = made(mask_ratio=0.5, contrast=1.0)
    plain = made(mask_ratio=0.5)[1]
    plain.load_state_dict({k: v for k, v in task.state_dict().items() if not k.startswith("project")})
    both, one = (loss_of(each, obs, encoder) for each in (task, plain))
    assert (both.loss > one.loss).all()
    assert "view_accuracy" in both.metrics.keys() - one.metrics.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\)"),
        ({"mask_ratio": 0.0}, r"mask_ratio must be in \(0, 1\)"),
        ({"mask_ratio": 0.01}, "must leave some"),
        ({"decoder_depth": 0}, "decoder_depth"),
        ({"contrast": -1.0}, "contrast"),
    ],
)
def test_what_is_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)


def test_another_encoder_is_refused():
    with pytest.raises(ValueError, match="encoder=vit"):
        build_task("masked_autoencoder", small_encoder((1, SIZE, SIZE)))


def error(images, *, gradient: bool = True) -> float:
    """The error ratio on pictures that were not learned from."""
    encoder, task = made(mask_ratio=0.5)
    train_on(task, encoder if gradient else cut(encoder), draw_from(images[:512]), steps=500, lr=1e-3)
    return measure(task, encoder, colours_of(images[512:]))["error_ratio"]


@pytest.mark.slow
def test_hidden_patches_are_learned_from_the_others_but_not_where_nothing_tells_them():
    pictures = balls(640, 1, SIZE)[:, 0]
    assert error(pictures) < 0.75
    assert error(noise(640, 1, SIZE, SIZE)) > 0.98
