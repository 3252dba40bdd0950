"""Frame permutation against the study's table, one sample at a time."""

import pytest
import torch
from aux_help import batch_of, make_setting, make_task, noise, tiny_encoder

STUDY = {  # class: its two orders
    "0123": ((0, 1, 2, 3), (3, 2, 1, 0)),
    "0213": ((0, 2, 1, 3), (3, 1, 2, 0)),
    "0321": ((0, 3, 2, 1), (1, 2, 3, 0)),
    "1302": ((1, 3, 0, 2), (2, 0, 3, 1)),
}


def order_of(permuted: torch.Tensor, obs: torch.Tensor) -> tuple[int, ...]:
    """Which frame of `obs` (4, c, H, W) stands at each place of `permuted`, all its colours together."""
    return tuple(next(k for k in range(4) if torch.equal(frame, obs[k])) for frame in permuted)


@pytest.mark.parametrize("colours", [1, 3])
def test_every_sample_gets_an_order_of_its_class_and_every_order_occurs(colours):
    shape = (4 * colours, 7, 6)
    obs = noise(160, *shape)
    label = torch.arange(160) % 4
    task = make_task("permutation", tiny_encoder(shape))
    assert task.classes == tuple(STUDY)
    permuted = task.transform(obs, label)
    assert permuted.shape == obs.shape
    assert permuted.dtype == torch.uint8
    seen = set()
    for i in range(160):
        order = order_of(permuted[i].reshape(4, colours, 7, 6), obs[i].reshape(4, colours, 7, 6))
        assert order in STUDY[task.classes[label[i]]]
        seen.add(order)
    assert seen == {order for orders in STUDY.values() for order in orders}


def test_an_order_and_its_reverse_are_one_class_and_equally_likely():
    shape = (4, 5, 6)
    obs = noise(400, *shape)
    permuted = make_task("permutation", tiny_encoder(shape)).transform(obs, torch.zeros(400, dtype=torch.long))
    reversed_ = (permuted == obs.flip(1)).all((1, 2, 3))
    assert ((permuted == obs).all((1, 2, 3)) ^ reversed_).all()
    assert abs(reversed_.sum() - 200) < 40  # four standard deviations


def test_channels_last_pixels_are_permuted_alike():
    obs = noise(9, 8, 7, 6)
    task, label = make_task("permutation", tiny_encoder((8, 7, 6))), torch.arange(9) % 4
    expected = task.transform(obs, label)
    task.generator.manual_seed(2)
    assert torch.equal(task.transform(obs.contiguous(memory_format=torch.channels_last), label), expected)


def test_examples_name_the_class_that_was_applied():
    obs, encoder = noise(11, 4, 7, 6), tiny_encoder((4, 7, 6))
    shown = make_task("permutation", encoder).examples(batch_of(obs), encoder)
    for permuted, original, name in zip(shown.inputs, obs, shown.correct, strict=False):
        assert order_of(permuted, original) in STUDY[name]


@pytest.mark.parametrize("frame_stack", [1, 2, 8])
def test_stacks_of_another_length_are_refused(frame_stack):
    encoder = tiny_encoder((8, 7, 6))
    with pytest.raises(ValueError, match=f"permutation needs frame_stack=4, got {frame_stack}"):
        make_task("permutation", encoder, make_setting(encoder, frame_stack=frame_stack))
