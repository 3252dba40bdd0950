"""What the tasks on clips have in common: ends of episodes, strides, blind heads, and what they learn."""

from dataclasses import replace
from functools import cache
from math import log

import pytest
import torch
from clip_help import flat, frames_shuffled, learned, order_learned, out_of_order, still
from contract_help import CASES, STACK, batch_for_all, small_encoder, suite_of
from pretext_help import balls, scrambled

from aux_tasks import TASKS

CLIPS = [name for name, kind in TASKS.items() if "clip_mask" in kind.reads and ".video." in kind.__module__]


def made(name: str, **options):
    encoder = small_encoder()
    ((_, task),) = suite_of(name, encoder, options=CASES[name] | options)
    return encoder, task, lambda batch: task.loss(batch, torch.empty(0), encoder)


@pytest.mark.parametrize("name", CLIPS)
def test_what_follows_the_end_of_an_episode_changes_nothing(name):
    _, task, loss = made(name)
    batch = batch_for_all()
    batch.clip_mask[1, 2] = batch.clip_mask[2, 0] = 0  # whatever stands behind them
    draw = task.generator.get_state()
    before = loss(batch)
    batch.clip[1, 3:], batch.clip[2, 1:] = batch.clip[0, 3:].clone(), batch.clip[3, 1:].clone()
    task.generator.set_state(draw)
    after = loss(batch)
    torch.testing.assert_close(after.loss, before.loss)
    for key in before.metrics.keys() - {"spread"}:  # which is of all clips
        torch.testing.assert_close(after.metrics[key], before.metrics[key])


@pytest.mark.parametrize("name", CLIPS)
def test_without_a_whole_clip_the_loss_is_0(name):
    encoder, task, loss = made(name)
    batch = batch_for_all()
    output = loss(replace(batch, clip_mask=batch.clip_mask * 0))
    output.loss.sum().backward()
    gradients = [p.grad for p in [*encoder.parameters(), *task.parameters()] if p.grad is not None]
    if name == "tov_vicreg":  # has a loss on views beside it
        assert output.loss.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert output.metrics["accuracy"] == 0
    else:
        assert not output.loss.any()
        assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", [*CLIPS, "spr"])
def test_short_clips_are_named(name):
    _, task, loss = made(name)
    batch, length = batch_for_all(), task.clip_length
    with pytest.raises(AssertionError, match=f"expected clips of at least {length} observations, got {length - 1}"):
        loss(replace(batch, clip=batch.clip[:, : length - 1]))


STRIDES = {"arrow_of_time": {"stride": 3}, "video_colorization": {"stride": 2}, "tracking": {"stride": 2, "length": 3}}
STRIDES |= {"temporal_cpc": {}, "st_dim": {}}  # no frame is seen twice


@pytest.mark.parametrize("name", STRIDES)
def test_a_stride_leaves_observations_out(name):
    options, stride = STRIDES[name], STRIDES[name].get("stride", STACK)
    (_, task, strided), (_, dense, consecutive) = made(name, **options), made(name, **options | {"stride": 1})
    batch = batch_for_all()
    expected = consecutive(replace(batch, clip=batch.clip[:, ::stride], clip_mask=batch.clip_mask[:, ::stride])).loss
    assert task.clip_length == stride * (dense.clip_length - 1) + 1
    assert expected.any()
    assert torch.equal(strided(batch).loss, expected)


@pytest.mark.parametrize(
    ("name", "loss", "chance"),
    [
        ("arrow_of_time", log(2), 1 / 2),
        ("shuffle_learn", log(2), 1 / 2),
        ("odd_one_out", log(4), 1 / 4),
        ("temporal_cpc", log(4 * 8), 1 / 32),
        ("st_dim", 2 * log(4), 1 / 4),
        ("tracking", 0.5, 1 / 4),  # the margin
    ],
)
def test_what_says_nothing_has_the_loss_of_a_die(name, loss, chance):
    encoder, task, loss_of = made(name)
    for parameter in [*encoder.parameters(), *task.parameters()]:
        parameter.data.zero_()
    output = loss_of(batch_for_all())
    assert float(output.loss.detach().mean()) == pytest.approx(loss)
    assert float(output.metrics["chance"]) == pytest.approx(chance)
    assert output.metrics.get("spread", 0) < 1e-3


# --- what is learned, and what is not from destroyed content or without gradient ---

SHUFFLE = {"steps": 80, "clip_length": 9, "hidden": 32}
ORDERS = [
    ("shuffle_learn", SHUFFLE, 0.8, 1),
    ("shuffle_learn", SHUFFLE | {"frozen": True}, 0, 0.75),
    ("shuffle_learn", SHUFFLE | {"destroy": out_of_order}, 0.44, 0.56),
    ("shuffle_learn", {"steps": 2, "destroy": still}, 0.5, 0.5),
    ("odd_one_out", {"steps": 2, "destroy": still}, 0.25, 0.25),
    ("arrow_of_time", {"steps": 2, "destroy": still}, 0.5, 0.5),
]
for frame_stack in (1, 4):
    odd = {"steps": 60, "frame_stack": frame_stack, "hidden": 32}
    ORDERS.append(("odd_one_out", odd, 0.65, 1))
    ORDERS.append(("odd_one_out", odd | {"frozen": True}, 0, 0.55))
    ORDERS.append(("odd_one_out", odd | {"destroy": out_of_order}, 0.19, 0.31))
for frame_stack in (1, 2):
    arrow = {"steps": 40, "frame_stack": frame_stack, "maps": 3, "hidden": 8}
    ORDERS.append(("arrow_of_time", arrow, 0.9, 1))
    ORDERS.append(("arrow_of_time", arrow | {"steps": 0}, 0, 0.65))  # the head finds the arrow in random maps too
    ORDERS.append(("arrow_of_time", arrow | {"destroy": out_of_order}, 0.42, 0.58))


@pytest.mark.parametrize(("name", "options", "low", "high"), ORDERS)
def test_order_is_learned_by_the_encoder_and_from_order_alone(name, options, low, high):
    assert low <= order_learned(name, **options) <= high


@cache
def predicted(name: str, destroy=lambda clip: clip, *, frozen: bool = False) -> dict[str, float]:
    """The accuracies, in multiples of that of chance."""
    length, steps, options = {
        "temporal_cpc": (5, 60, {"length": 5, "horizon": 2, "hidden": 32}),
        "st_dim": (2, 100, {}),
    }[name]
    found = learned(name, lambda n, seed: balls(n, length, 16, seed), destroy, steps=steps, frozen=frozen, **options)
    return {key: value / found["chance"] for key, value in found.items() if "accuracy" in key}


def test_what_comes_next_is_learned():
    assert predicted("temporal_cpc")["accuracy"] > 8
    assert predicted("st_dim")["accuracy_global"] > 2
    assert predicted("st_dim")["accuracy_local"] > 2
    assert predicted("st_dim", still)["accuracy_local"] > 2 * predicted("st_dim")["accuracy_local"], "a known shortcut"


@pytest.mark.parametrize(("name", "most"), [("temporal_cpc", 4), ("st_dim", 2)])
def test_what_comes_next_is_not_learned_from_destroyed_content_or_without_gradient(name, most):
    assert predicted(name, frozen=True)["accuracy"] < most
    for destroy in (scrambled, frames_shuffled, flat):
        assert predicted(name, destroy)["accuracy"] < most
