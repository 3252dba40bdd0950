"""What holds for every transformation task: it learns from content alone, and hides what it is told to hide."""

from itertools import permutations

import pytest
import torch
from aux_help import accuracy_after_training, batch_of, make_setting, make_task, moving_balls, noise, tiny_encoder

from aux_tasks import TASKS
from aux_tasks.transform import TransformTask
from aux_tasks.video.permutation import distant_orders

STEPS = {"rotation": 50, "permutation": 200}
CHANCE = 0.25
HELD_OUT, DRAWS = 512, 8  # labels drawn eight times for each held-out sample
FOUR_SIGMA = 4 * (CHANCE * (1 - CHANCE) / (HELD_OUT * DRAWS)) ** 0.5

tasks = pytest.mark.parametrize("name", [name for name, kind in TASKS.items() if issubclass(kind, TransformTask)])


def flat_grey(batch: int, seed: int) -> torch.Tensor:
    return noise(batch, 1, 1, 1, seed=seed).expand(-1, 4, 36, 36).contiguous()


def white_noise(batch: int, seed: int) -> torch.Tensor:
    return noise(batch, 4, 36, 36, seed=seed)


@tasks
def test_it_is_learned_on_structured_samples_by_weights_that_move(name):
    obs = moving_balls(64)
    assert accuracy_after_training(name, lambda _: obs, held_out=obs, steps=STEPS[name]) > 0.95
    assert accuracy_after_training(name, lambda _: obs, held_out=obs, steps=5, lr=0.0) < 0.5


@tasks
@pytest.mark.parametrize("draw", [flat_grey, white_noise])
def test_without_content_accuracy_stays_at_chance(name, draw):
    held_out = draw(HELD_OUT, seed=10_000)
    accuracy = accuracy_after_training(name, lambda step: draw(32, seed=step), held_out=held_out, steps=STEPS[name])
    assert abs(accuracy - CHANCE) < FOUR_SIGMA


@tasks
def test_the_loss_is_the_cross_entropy_of_the_examples(name):
    obs = noise(7, 4, 12, 12)
    encoder = tiny_encoder((4, 12, 12))
    task = make_task(name, encoder, hidden=5)
    shown = task.examples(batch_of(obs), encoder)
    task.generator.manual_seed(2)  # the same draw again
    output = task.loss(batch_of(obs), encoder(obs), encoder)
    logits = task.head(encoder(shown.pictures["input"]))
    for i, correct in enumerate(shown.correct):
        label = task.classes.index(correct)
        torch.testing.assert_close(output.loss[i], logits[i].exp().sum().log() - logits[i, label])
        assert shown.predicted[i] == task.classes[int(logits[i].argmax())]
    hits = [p == c for p, c in zip(shown.predicted, shown.correct, strict=True)]
    torch.testing.assert_close(output.metrics["accuracy"], torch.tensor(sum(hits) / 7))


@tasks
@pytest.mark.parametrize(("top", "bottom"), [(3, 12), (0, 9), (2, 5), (3, 9)])
def test_rows_inside_crop_rows_are_stretched_over_the_whole_height(name, top, bottom):
    obs = noise(6, 4, 12, 12)
    encoder = tiny_encoder((4, 12, 12))
    whole, cropped = make_task(name, encoder), make_task(name, encoder, crop_rows=[top, bottom])
    by_hand = torch.stack([obs[:, :, round(top + row * (bottom - top - 1) / 11)] for row in range(12)], dim=2)
    seen = cropped.examples(batch_of(obs), encoder).pictures["input"]
    assert torch.equal(seen, whole.examples(batch_of(by_hand), encoder).pictures["input"])
    expected, loss = whole.loss(batch_of(by_hand), torch.empty(0), encoder), cropped.loss
    assert torch.equal(loss(batch_of(obs), torch.empty(0), encoder).loss, expected.loss)


@tasks
@pytest.mark.parametrize("rows", [[5, 5], [-1, 6], [0, 13], [1, 2, 3], [0.2, 0.5], 5, "top", []])
def test_bad_crop_rows_are_refused(name, rows):
    message = r"crop_rows must be \[top, bottom\] with 0 <= top < bottom <= 12, got "
    with pytest.raises(ValueError, match=message):
        make_task(name, tiny_encoder((4, 12, 12)), crop_rows=rows)


# --- permutation ---

STUDY = {  # class: its two orders
    "0123": ((0, 1, 2, 3), (3, 2, 1, 0)),
    "0213": ((0, 2, 1, 3), (3, 1, 2, 0)),
    "0321": ((0, 3, 2, 1), (1, 2, 3, 0)),
    "1302": ((1, 3, 0, 2), (2, 0, 3, 1)),
}


def order_of(permuted: torch.Tensor, obs: torch.Tensor) -> tuple[int, ...]:
    """Which frame of `obs` (K, c, H, W) stands at each position of `permuted`, all its colours together."""
    return tuple(next(k for k in range(len(obs)) if torch.equal(frame, obs[k])) for frame in permuted)


def test_channels_last_pixels_are_permuted_alike():
    obs = noise(9, 8, 7, 6)
    task, label = make_task("permutation", tiny_encoder((8, 7, 6))), torch.arange(9) % 4
    expected = task.transform(obs, label)
    task.generator.manual_seed(2)
    assert torch.equal(task.transform(obs.contiguous(memory_format=torch.channels_last), label), expected)


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
