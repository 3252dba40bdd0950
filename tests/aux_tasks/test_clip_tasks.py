"""What the tasks on clips have in common, and what those that tell the next observation compute."""

from dataclasses import replace
from functools import cache
from math import log

import pytest
import torch
from aux_help import noise, tiny_encoder
from clip_help import flat, frames_shuffled, learned, order_learned, out_of_order, still
from contract_help import CASES, STACK, batch_for_all, small_encoder, suite_of
from control_help import array, cross_entropy
from pretext_help import balls, build_task, clips_of, scrambled

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
        assert output.metrics["accuracy"] == output.metrics["chance"]
    else:
        assert not output.loss.any()
        assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("name", [*CLIPS, "spr"])
def test_short_clips_are_named(name):
    _, task, loss = made(name)
    batch, length = batch_for_all(), task.clip_length
    with pytest.raises(AssertionError, match=f"expected clips of at least {length} observations, got {length - 1}"):
        loss(replace(batch, clip=batch.clip[:, : length - 1]))


STRIDES = {"arrow_of_time": {"stride": 3}, "video_colorization": {"stride": 2}, "tracking": {"stride": 2, "frames": 3}}
STRIDES |= {"motion_statistics": {"stride": 2}}
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
        "temporal_cpc": (5, 60, {"frames": 5, "horizon": 2, "hidden": 32}),
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


# --- temporal CPC and ST-DIM against loops ---

B, T, K, Z = 5, 4, 2, 7


def cpc():
    """Encoder, task, and five clips of four observations."""
    encoder = tiny_encoder((2, 10, 10), Z)
    clip = noise(B, T, 2, 10, 10)
    return encoder, build_task("temporal_cpc", encoder, frames=T, horizon=K, hidden=6), clips_of(clip)


def st_dim():
    """Encoder with maps of 3 x 4 x 6, task, and five pairs of observations."""
    encoder = tiny_encoder((2, 8, 12), Z)
    return encoder, build_task("st_dim", encoder), clips_of(noise(B, 2, 2, 8, 12))


@pytest.mark.parametrize("ends", [{}, {1: 2, 3: 0, 4: 1}])
def test_cpc_against_a_loop(ends):
    encoder, task, batch = cpc()
    for clip, last in ends.items():
        batch.clip_mask[clip, last:] = 0
    output = task.loss(batch, torch.empty(0), encoder)
    latent = array(encoder(batch.clip.flatten(0, 1))).reshape(B, T, Z)
    context = array(task.context(torch.as_tensor(latent).float())[0])
    candidates = [(i, t) for i in range(B) for t in range(T) if t <= ends.get(i, T)]
    asked = [(i, t, k) for i in range(B) for k in range(1, K + 1) for t in range(T - k) if (i, t + k) in candidates]
    losses, hits = torch.zeros(B), 0
    for i, t, k in asked:
        query = array(task.predictors[k - 1].weight) @ context[i, t]
        logits, own = [latent[at] @ query for at in candidates], candidates.index((i, t + k))
        losses[i] += cross_entropy(logits, own) * B / len(asked)
        hits += logits[own] == max(logits)
    torch.testing.assert_close(output.loss.detach(), losses, rtol=1e-4, atol=1e-5)
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / len(asked))
    assert float(output.metrics["chance"]) == pytest.approx(1 / len(candidates))


@pytest.mark.parametrize("broken", [[], [0, 3]])
def test_st_dim_against_a_loop(broken):
    encoder, task, batch = st_dim()
    batch.clip_mask[broken] = 0
    output = task.loss(batch, torch.empty(0), encoder)
    now, later = array(encoder.maps(batch.clip[:, 0])), array(encoder.maps(batch.clip[:, 1]))
    z, w_global, w_local = array(encoder(batch.clip[:, 0])), array(task.whole.weight), array(task.local.weight)
    inside = [i for i in range(B) if i not in broken]
    losses, hits = torch.zeros(B), torch.zeros(2)
    for own, i in enumerate(inside):
        for y in range(4):
            for x in range(6):
                for term, query in enumerate((w_global @ z[i], w_local @ now[i, :, y, x])):
                    logits = [query @ later[j, :, y, x] for j in inside]
                    losses[i] += cross_entropy(logits, own) / 24 * B / len(inside)
                    hits[term] += float(logits[own] == max(logits)) / 24 / len(inside)
    torch.testing.assert_close(output.loss.detach(), losses, rtol=1e-4, atol=1e-4)
    found = torch.stack([output.metrics["accuracy_global"], output.metrics["accuracy_local"]])
    torch.testing.assert_close(found, hits)
    torch.testing.assert_close(output.metrics["accuracy"], hits.mean())
    assert float(output.metrics["chance"]) == pytest.approx(1 / len(inside))


def test_the_neck_learns_from_the_global_term_alone():
    encoder, task, batch = st_dim()
    task.whole.weight.data.zero_()
    task.loss(batch, torch.empty(0), encoder).loss.sum().backward()
    assert all(not p.grad.any() for p in encoder.neck.parameters())
    assert all(p.grad.any() for p in [*encoder.trunk.parameters(), *task.parameters()])


@torch.no_grad()
def test_examples_show_the_context_what_was_chosen_and_what_came():
    encoder, task, batch = cpc()
    batch.clip_mask[[0, 3, 4], 1:] = 0
    shown = task.examples(batch, encoder)
    latent = encoder(batch.clip.flatten(0, 1)).view(B, T, Z)
    inside = [(j, s) for j in range(B) for s in range(T) if j in (1, 2) or s < 2]
    assert shown.correct == [f"{i}:{T - 1}" for i in range(4)]
    *seen, came, chosen = shown.pictures
    assert [*seen, came] == [f"t={t}" for t in (*range(T - K), T - 1)]
    for i, said in enumerate(shown.predicted):
        predicted = task.predictors[1].weight @ task.context(latent[i : i + 1])[0][0, T - 1 - K]
        clip, time = max(inside, key=lambda own: float(predicted @ latent[own]))
        assert said == f"{clip}:{time}"
        expected = [*batch.clip[i, : T - K], batch.clip[i, T - 1], batch.clip[clip, time]]
        assert all(map(torch.equal, [pixels[i] for pixels in shown.pictures.values()], expected))
        assert chosen == "predicted"


@torch.no_grad()
def test_examples_are_put_together_from_what_each_position_chose():
    encoder, task, batch = st_dim()
    batch.clip_mask[4] = 0
    shown = task.examples(batch, encoder)
    now, later, z = encoder.maps(batch.clip[:, 0]), encoder.maps(batch.clip[:, 1]), encoder(batch.clip[:, 0])
    for i in range(3):
        expected = torch.zeros(2, 2, 8, 12, dtype=torch.uint8)
        for y in range(4):
            for x in range(6):
                for term, query in enumerate((task.whole(z[i]), task.local(now[i, :, y, x]))):
                    pixels = (slice(None), slice(2 * y, 2 * y + 2), slice(2 * x, 2 * x + 2))
                    expected[term][pixels] = batch.clip[(later[:4, :, y, x] @ query).argmax(), 1][pixels]
        expected = [batch.clip[i, 0], *expected, batch.clip[i, 1]]
        assert all(map(torch.equal, [pixels[i] for pixels in shown.pictures.values()], expected))
