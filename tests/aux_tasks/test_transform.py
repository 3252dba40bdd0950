"""What holds for every transformation task: it learns from content alone, and hides what it is told to hide."""

import pytest
import torch
from aux_help import accuracy_after_training, batch_of, make_task, moving_balls, noise, tiny_encoder

from aux_tasks import TASKS
from aux_tasks.transform import TransformTask

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
def test_it_is_learned_on_structured_samples(name):
    obs = moving_balls(64)
    assert accuracy_after_training(name, lambda _: obs, held_out=obs, steps=STEPS[name]) > 0.95


@tasks
def test_nothing_is_learned_when_no_gradient_moves_the_weights(name):
    obs = moving_balls(64)
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
    logits = task.head(encoder(shown.inputs))
    for i, correct in enumerate(shown.correct):
        label = task.classes.index(correct)
        torch.testing.assert_close(output.loss[i], logits[i].exp().sum().log() - logits[i, label])
        assert shown.predicted[i] == task.classes[int(logits[i].argmax())]
    hits = [p == c for p, c in zip(shown.predicted, shown.correct, strict=True)]
    torch.testing.assert_close(output.metrics["accuracy"], torch.tensor(sum(hits) / 7))


@tasks
def test_labels_are_uniform(name):
    encoder = tiny_encoder((4, 12, 12))
    task = make_task(name, encoder)
    with torch.no_grad():
        batch = batch_of(noise(8, 4, 12, 12))
        correct = [task.classes.index(c) for _ in range(250) for c in task.examples(batch, encoder).correct]
    counts = torch.bincount(torch.tensor(correct), minlength=4).double()
    assert ((counts - 500) ** 2 / 500).sum() < 21.1  # chi-square, 3 degrees, p = 1e-4


@tasks
@pytest.mark.parametrize(("top", "bottom"), [(3, 12), (0, 9), (2, 5)])
def test_pixels_outside_crop_rows_never_reach_the_loss(name, top, bottom):
    obs = noise(6, 4, 12, 12)
    encoder = tiny_encoder((4, 12, 12))
    task = make_task(name, encoder, crop_rows=[top, bottom])

    def loss(pixels):
        task.generator.manual_seed(3)
        return task.loss(batch_of(pixels), encoder(pixels), encoder).loss

    for row in range(12):
        changed = obs.clone()
        changed[:, :, row] += 100
        hidden = not top <= row < bottom
        assert torch.equal(loss(changed), loss(obs)) == hidden, f"row {row}"


@tasks
def test_cropped_rows_are_stretched_over_the_whole_height(name):
    obs = noise(6, 4, 12, 12)
    encoder = tiny_encoder((4, 12, 12))
    whole, cropped = make_task(name, encoder), make_task(name, encoder, crop_rows=[3, 9])
    by_hand = torch.stack([obs[:, :, round(3 + row * 5 / 11)] for row in range(12)], dim=2)
    seen = cropped.examples(batch_of(obs), encoder).inputs
    assert torch.equal(seen, whole.examples(batch_of(by_hand), encoder).inputs)
    assert seen.shape == obs.shape


@tasks
@pytest.mark.parametrize("rows", [[5, 5], [-1, 6], [0, 13], [1, 2, 3], [0.2, 0.5], 5, "top", []])
def test_bad_crop_rows_are_refused(name, rows):
    message = r"crop_rows must be \[top, bottom\] with 0 <= top < bottom <= 12, got "
    with pytest.raises(ValueError, match=message):
        make_task(name, tiny_encoder((4, 12, 12)), crop_rows=rows)
