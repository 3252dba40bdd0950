"""Grasp2Vec against loops that do one pair at a time, and what it learns of squares that vanish."""

import math
from dataclasses import replace

import pytest
import torch
from aux_help import batch_of, generator, make_setting, make_task, tiny_encoder
from pretext_help import cut, measure, train_on
from torch import Tensor, nn

from aux_tasks.goals.grasp2vec import Grasp2Vec
from encoders import Encoder
from replay import Batch

SIZE, CELL, KINDS = 24, 6, 26


def squares(count: int, seed: int, *, torn: bool = False) -> Batch:
    """Three squares of different colours in a grid of 4 x 4 positions; one vanishes, the others move by a pixel or two.

    The outcome is the square that vanished, in the middle; or, torn, that of another sample.
    """
    draw = generator(seed)
    colour = torch.cartesian_prod(*(torch.tensor([0, 110, 250], dtype=torch.uint8),) * 3)[1:]
    views = torch.zeros(count, 3, 3, SIZE, SIZE, dtype=torch.uint8)
    taken = torch.empty(count, dtype=torch.long)
    for i in range(count):
        kinds, positions = (torch.randperm(n, generator=draw)[:3] for n in (KINDS, 16))
        taken[i] = kinds[0]
        for k, (kind, position) in enumerate(zip(kinds, positions, strict=True)):
            for view in range(2 if k else 1):
                y, x = (
                    CELL * torch.stack([position // 4, position % 4]) + torch.randint(0, 3, (2,), generator=draw)
                ).tolist()
                views[i, view, :, y : y + 4, x : x + 4] = colour[kind, :, None, None]
    shown = taken.roll(1) if torn else taken
    views[:, 2, :, 8:16, 8:16] = colour[shown, :, None, None]
    return replace(batch_of(views[:, 0]), views=views)


def encoder_of_squares() -> Encoder:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()]
    return Encoder(nn.Sequential(*layers), nn.Sequential(), (3, SIZE, SIZE))


def task_of_squares(encoder: Encoder) -> Grasp2Vec:
    task = make_task("grasp2vec", encoder, make_setting(encoder, frame_stack=1), embedding_dim=32)
    assert isinstance(task, Grasp2Vec)
    return task


def small() -> tuple[Grasp2Vec, Encoder, Batch]:
    encoder = tiny_encoder((3, 12, 12))
    task = make_task("grasp2vec", encoder, make_setting(encoder, frame_stack=1), embedding_dim=5, regularisation=0.1)
    views = torch.randint(256, (6, 3, 3, 12, 12), dtype=torch.uint8, generator=generator(1))
    assert isinstance(task, Grasp2Vec)
    return task, encoder, replace(batch_of(views[:, 0]), views=views)


def slow_phi(pixels: Tensor, trunk: nn.Module, head: nn.Conv2d) -> Tensor:
    """The mean over positions of max(0, W f + b), one position at a time."""
    maps = trunk(pixels[None].float() / 255)[0]
    positions = [(y, x) for y in range(maps.shape[1]) for x in range(maps.shape[2])]
    weight = head.weight[:, :, 0, 0]
    return torch.stack([(weight @ maps[:, y, x] + head.bias).clamp_min(0) for y, x in positions]).mean(0)


def test_the_loss_is_that_of_a_loop_over_pairs():
    task, encoder, batch = small()
    with torch.no_grad():
        task.outcome_head.bias += 0.1  # the two networks are not the same
        lost = [slow_phi(v[0], encoder.trunk, task.scene_head) for v in batch.views]
        lost = [p - slow_phi(v[1], encoder.trunk, task.scene_head) for p, v in zip(lost, batch.views, strict=True)]
        taken = [slow_phi(v[2], task.outcome_encoder.trunk, task.outcome_head) for v in batch.views]
    expected = []
    for i in range(6):
        total = 0.0
        for a, b in ((lost, taken), (taken, lost)):
            products = [float(a[i] @ b[j]) for j in range(6)]
            total += math.log(sum(map(math.exp, products))) - products[i]
            total += 0.1 * float(a[i] @ a[i] + b[i] @ b[i])
        expected.append(total)
    output = task.loss(batch, torch.empty(0), encoder)
    torch.testing.assert_close(output.loss, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    nearest = [max(range(6), key=lambda j: float(lost[i] @ taken[j])) == i for i in range(6)]
    assert float(output.metrics["accuracy"]) == pytest.approx(sum(nearest) / 6)
    assert float(output.metrics["chance"]) == pytest.approx(1 / 6)


def test_the_mean_of_a_heatmap_is_the_product_of_the_embeddings():
    task, encoder, batch = small()
    before, after, outcome = batch.views.unbind(1)
    goal = task.embed(outcome, encoder)
    both = [task.heatmap(scene, goal, encoder).mean((1, 2)) for scene in (before, after)]
    torch.testing.assert_close(both[0] - both[1], (task.difference(before, after, encoder) * goal).sum(1))


def test_the_reward_is_a_cosine():
    task, encoder, batch = small()
    goal = task.embed(batch.views[:, 2], encoder)
    assert goal.shape == (6, task.goal_dim)
    torch.testing.assert_close(task.reward(goal, 3 * goal), torch.ones(6))
    assert task.reward(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])).item() == pytest.approx(0.5**0.5)
    assert task.reward(torch.zeros(1, 5), goal[:1]).item() == 0


@pytest.mark.parametrize("options", [{"embedding_dim": 0}, {"regularisation": -1e-3}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}.* got .*{next(iter(options.values()))}"):
        make_task("grasp2vec", tiny_encoder((3, 12, 12)), **options)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["content", "torn", "cut"])
def test_what_vanished_is_found_unless_the_outcome_is_of_another_or_the_gradient_is_cut(case):
    encoder, torn = encoder_of_squares(), case == "torn"
    task = task_of_squares(encoder)
    train = squares(2000, 1, torn=torn)

    def draw(step: int) -> Batch:
        rows = torch.randint(2000, (16,), generator=generator(step))
        return replace(batch_of(train.obs[rows]), views=train.views[rows])

    train_on(task, cut(encoder) if case == "cut" else encoder, draw, steps=500, lr=3e-3)
    accuracy = sum(measure(task, encoder, squares(16, seed, torn=torn), 1)["accuracy"] for seed in range(7, 15)) / 8
    assert accuracy > 0.4 if case == "content" else accuracy < 0.25
