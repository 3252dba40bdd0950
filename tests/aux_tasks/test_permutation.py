"""Frame permutation against the study's table, one sample at a time."""

from itertools import permutations

import pytest
import torch
from aux_help import batch_of, make_setting, make_task, noise, tiny_encoder

from aux_tasks.video.permutation import distant_orders

STUDY = {  # class: its two orders
    "0123": ((0, 1, 2, 3), (3, 2, 1, 0)),
    "0213": ((0, 2, 1, 3), (3, 1, 2, 0)),
    "0321": ((0, 3, 2, 1), (1, 2, 3, 0)),
    "1302": ((1, 3, 0, 2), (2, 0, 3, 1)),
}


def order_of(permuted: torch.Tensor, obs: torch.Tensor) -> tuple[int, ...]:
    """Which frame of `obs` (K, c, H, W) stands at each place of `permuted`, all its colours together."""
    return tuple(next(k for k in range(len(obs)) if torch.equal(frame, obs[k])) for frame in permuted)


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


@pytest.mark.parametrize("frame_stack", [1, 2])
def test_stacks_that_have_one_order_are_refused(frame_stack):
    encoder = tiny_encoder((8, 7, 6))
    with pytest.raises(ValueError, match=f"permutation needs frame_stack=4, got {frame_stack}; any from 3 on would do"):
        make_task("permutation", encoder, make_setting(encoder, frame_stack=frame_stack))


def test_four_frames_take_the_same_draws_as_ever():
    """The weights in zoo/ were trained with them: first the class, then the direction."""
    obs, encoder = noise(50, 4, 7, 6), tiny_encoder((4, 7, 6))
    task = make_task("permutation", encoder)
    state = task.generator.clone_state()
    label, direction = (torch.randint(most, (50,), generator=state) for most in (4, 2))
    permuted, drawn = task._draw(obs)
    assert torch.equal(drawn, label)
    for i, orders in enumerate(list(STUDY.values())[k] for k in label):
        assert order_of(permuted[i], obs[i]) == orders[direction[i]]


@pytest.mark.parametrize(("frames", "classes"), [(3, None), (3, 2), (4, 12), (5, None), (6, 20), (9, 5)])
def test_stacks_of_other_lengths_are_permuted_to_classes_of_their_own(frames, classes):
    encoder, obs = tiny_encoder((2 * frames, 5, 6)), noise(200, 2 * frames, 5, 6)
    task = make_task("permutation", encoder, make_setting(encoder, frame_stack=frames), classes=classes)
    count = classes or min(4, frames * (frames - 1) // 2)
    assert len(set(task.classes)) == count == task.head[-1].out_features
    assert task.classes[0] == "".join(map(str, range(frames)))
    assert not set(task.classes) & {name[::-1] for name in task.classes}
    label = torch.arange(200) % count
    permuted = task.transform(obs, label)
    for i in range(200):
        found = order_of(permuted[i].reshape(frames, 2, 5, 6), obs[i].reshape(frames, 2, 5, 6))
        name = task.classes[label[i]]
        assert "".join(map(str, found)) in (name, name[::-1])


def test_each_order_is_the_farthest_from_those_before_it():
    def distance(a, b):
        return min(sum(x != y for x, y in zip(a, c, strict=True)) for c in (b, b[::-1]))

    chosen = [tuple(order) for order in distant_orders(5, 12)[:, 0].tolist()]
    for k in range(1, 12):
        nearest = {order: min(distance(order, before) for before in chosen[:k]) for order in permutations(range(5))}
        assert nearest[chosen[k]] == max(nearest.values())
    assert torch.equal(distant_orders(5, 12), distant_orders(5, 12))


@pytest.mark.parametrize(("frames", "classes", "most"), [(3, 4, 3), (4, 13, 12), (4, 1, 12), (5, 0, 60)])
def test_numbers_of_classes_that_there_are_not_are_refused(frames, classes, most):
    encoder = tiny_encoder((frames, 7, 6))
    message = f"classes must be 2 to {most} for stacks of {frames} frames, got {classes}"
    with pytest.raises(ValueError, match=message):
        make_task("permutation", encoder, make_setting(encoder, frame_stack=frames), classes=classes)
