"""Time-contrastive networks: losses against loops, what is drawn, what is learned and what is not."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from aux_help import generator, noise, tiny_encoder
from clip_help import noise_clip, patch_encoder
from pretext_help import ahead, build_task, clips_of, cut, measure, train_on
from torch import Tensor

from aux_tasks.goals.mftcn import n_pairs
from aux_tasks.goals.tcn import ALPHA, BETA, GAMMA, imitation_reward, retrieval_of_moments, semi_hard_triplets
from replay import Batch

B, T, V, K = 5, 13, 3, 4
SHAPE = (1, 12, 12)


def views_of(clip_views: Tensor) -> Batch:
    """A batch of clips (B, T, V, C, H, W) of several views."""
    return replace(clips_of(clip_views[:, :, 0]), clip_views=clip_views)


def coded() -> Batch:
    """Pictures of one colour: clip, time and view, as a number."""
    code = torch.arange(B * T * V, dtype=torch.uint8).view(B, T, V, 1, 1, 1)
    return views_of(code.expand(B, T, V, *SHAPE).contiguous())


def decoded(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    code = pictures[..., 0, 0].long()
    return code // (T * V), code // V % T, code % V


# --- the losses ---


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_triplets_with_semi_hard_negatives_against_a_loop(margin):
    embedding = torch.nn.functional.normalize(torch.randn(6, 2, K, 5, generator=generator()), dim=3)
    embedding[0] = embedding[0, :1]  # both views alike
    embedding[1, 1] = -embedding[1, 0]  # no negative is farther away
    found, kinds, each = semi_hard_triplets(embedding, margin), set(), embedding.double().numpy()
    for i, loss in enumerate(found.tolist()):
        losses = []
        for view, k in np.ndindex(2, K):
            anchor, positive = each[i, view, k], ((each[i, view, k] - each[i, 1 - view, k]) ** 2).sum()
            places = [(j, v, m) for j, v, m in np.ndindex(6, 2, K) if (j, m) != (i, k)]
            others = [((anchor - each[place]) ** 2).sum() for place in places]
            harder = [d for d in others if d > positive]
            kinds.add(bool(harder))
            losses.append(max(0.0, margin + positive - (min(harder) if harder else max(others))))
        assert loss == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-6)
    assert kinds == {True, False}


def test_n_pairs_against_a_loop():
    anchor, positive = torch.randn(2, 6, K, 5, generator=generator())
    for a, p, loss in zip(anchor.numpy(), positive.numpy(), n_pairs(anchor, positive, 0.4).tolist(), strict=True):
        logits = a @ p.T
        missed = [math.log(np.exp(logits[i]).sum()) - logits[i, i] for i in range(K)]
        norms = [(a[i] ** 2).sum() + (p[i] ** 2).sum() for i in range(K)]
        assert loss == pytest.approx(np.mean(missed) + 0.1 * np.mean(norms), rel=1e-4)


def test_the_reward_against_a_loop():
    v, w = torch.randn(2, 7, 3, generator=generator())
    for i, reward in enumerate(imitation_reward(v, w).tolist()):
        squared = sum((a - b) ** 2 for a, b in zip(v[i].tolist(), w[i].tolist(), strict=True))
        assert reward == pytest.approx(-(ALPHA * squared + BETA * math.sqrt(GAMMA + squared)), rel=1e-4)
    assert imitation_reward(v, v).tolist() == pytest.approx([-BETA * math.sqrt(GAMMA)] * 7)


def test_retrieval_is_that_of_the_other_view_and_chance_when_collapsed():
    embedding = torch.randn(3, 2, K, 4, generator=generator())
    embedding[1:, 1] = embedding[1:, 0]
    hits = [(np.linalg.norm(a[:, None] - b, axis=2).argmin(1) == np.arange(K)).mean() for a, b in embedding.numpy()]
    all_valid = retrieval_of_moments(embedding, torch.ones(3))
    assert float(all_valid["accuracy"]) == pytest.approx(np.mean(hits))
    assert float(retrieval_of_moments(embedding, torch.tensor([0.0, 1, 1]))["accuracy"]) == 1
    for same, valid in ((torch.ones(3, 2, K, 4), torch.ones(3)), (embedding, torch.zeros(3))):
        assert float(retrieval_of_moments(same, valid)["accuracy"]) == float(all_valid["chance"]) == 1 / K


# --- what is drawn ---


def test_a_moment_is_in_two_views_and_moments_keep_their_gap():
    task = build_task("tcn", tiny_encoder(SHAPE, 3), clip_length=T, moments=K, gap=3)
    pairs = set()
    for _ in range(20):
        pictures, valid, times = task._draw(coded())
        clip, time, view = decoded(pictures)[0:3]
        assert valid.all()
        assert (clip == torch.arange(B)[:, None, None, None]).all()
        assert torch.equal(time[..., 0], times[:, None].expand(-1, 2, -1))
        assert (times.diff(dim=1) >= 3).all()
        assert (view == view[:, :, :1]).all()
        pairs |= {tuple(pair) for pair in view[:, :, 0, 0].tolist()}
    assert pairs == {(a, b) for a in range(V) for b in range(V) if a != b}


def test_in_a_single_view_a_moment_lasts_for_its_radius():
    task = build_task("single_view_tcn", tiny_encoder(SHAPE, 3), clip_length=T, moments=3, gap=4, radius=2)
    batch, offsets = coded(), set()
    batch.clip_mask[1, 3] = 0  # the episode ends here
    for _ in range(20):
        pictures, valid, times = task._draw(batch)
        clip, time, view = (code[..., 0] for code in decoded(pictures))
        assert (clip == torch.arange(B)[:, None, None]).all()
        assert (view == 0).all()
        assert torch.equal(time[:, 0], times)
        offsets |= set((time[:, 1] - time[:, 0]).flatten().tolist())
        assert (times.diff(dim=1) >= 4).all()
        assert valid.tolist() == [1, 0, 1, 1, 1]
    assert offsets == {1, 2}


def test_a_moment_of_several_frames_ends_at_its_time():
    encoder = tiny_encoder(SHAPE, 3)
    task = build_task(
        "mftcn", encoder, clip_length=T, frames=3, stride=2, moments=K, gap=2, embedding_dim=4, channels=4
    )
    pictures, times = task._draw(coded())
    assert pictures.shape == (B, 2, K, 3, *SHAPE[1:])
    assert times.min() >= 4
    clip, time, view = (code.squeeze(-1) for code in decoded(pictures.unsqueeze(4)))
    assert (clip == torch.arange(B)[:, None, None, None]).all()
    assert torch.equal(time, (times[:, None, :, None] + torch.tensor([-4, -2, 0])).expand_as(time))
    assert (view == view[:, :, :1, :1]).all()
    one = noise(4, *SHAPE)
    torch.testing.assert_close(task.embed(one, encoder), task.embed(one.repeat(1, 3, 1, 1), encoder))
    moving = torch.cat([noise(4, *SHAPE, seed=s) for s in range(3)], dim=1)
    assert not torch.allclose(task.embed(moving, encoder), task.embed(moving.flip(1), encoder))


@pytest.mark.parametrize("name", ["tcn", "single_view_tcn"])
def test_embeddings_lie_on_the_unit_sphere(name):
    encoder = tiny_encoder(SHAPE, 3)
    embedding = build_task(name, encoder, embedding_dim=7).embed(noise(5, *SHAPE), encoder)
    assert embedding.shape == (5, 7)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(5))


@pytest.mark.parametrize("name", ["tcn", "mftcn"])
def test_the_loss_is_that_of_what_is_drawn(name):
    encoder = tiny_encoder(SHAPE, 3)
    task = build_task(name, encoder, clip_length=T, moments=K, embedding_dim=4)
    batch = views_of(torch.stack([noise_clip(B, T, seed=seed) for seed in range(V)], dim=2))
    pictures = ahead(task, task._draw, batch)[0]
    embedding = torch.stack([task.embed(pair.flatten(0, 1), encoder).view(2, K, 4) for pair in pictures])
    loss = task.loss(batch, torch.empty(0), encoder).loss
    expected = semi_hard_triplets(embedding, 0.2) if name == "tcn" else n_pairs(*embedding.unbind(1), 0.002)
    torch.testing.assert_close(loss, expected)


def test_examples_are_the_moments_of_a_clip():
    encoder = tiny_encoder(SHAPE, 3)
    for name in ("tcn", "mftcn"):
        task = build_task(name, encoder, clip_length=T, moments=K, embedding_dim=4)
        _, *_, times = ahead(task, task._draw, coded())
        shown = task.examples(coded(), encoder)
        assert shown.correct == [str(t) for t in times[0].tolist()]
        strips = shown.pictures.pop("likeness by time")[:, 0, 0].float()
        white = [strip.argmax() * K // strip.shape[-1] for strip in strips]
        assert [str(times[0, part].item()) for part in white] == shown.predicted
        assert (strips.amin(1) == 0).all()
        seen = {key: decoded(pixels)[1].flatten().tolist() for key, pixels in shown.pictures.items()}
        assert seen["first view"] == seen["second view"] == times[0].tolist()
        assert [str(t) for t in seen["closest"]] == shown.predicted


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("tcn", {"moments": 1}, "moments must be at least 2"),
        ("tcn", {"gap": 0}, "gap must be at least 1"),
        ("tcn", {"clip_length": 14}, "8 moments 2 apart need 15 observations, but the clip has 14"),
        ("single_view_tcn", {"radius": 8}, "radius must be from 1 to less than gap=8"),
        ("single_view_tcn", {"clip_length": 26}, "4 moments 8 apart need 25 observations, but the clip has 24"),
        ("mftcn", {"frames": 1}, "frames must be at least 2"),
        ("mftcn", {"stride": 8}, "8 moments 2 apart need 15 observations, but the clip has 13"),
    ],
)
def test_options_that_do_not_fit_are_named(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        build_task(name, tiny_encoder(SHAPE, 3), **wrong)


# --- what is learned ---


@cache
def orbits(batch: int, seed: int) -> Tensor:
    """(B, T, 2, 3, 24, 24): a square on a path that does not close; the second camera is turned and sees other
    colours.
    """
    rng = np.random.default_rng(seed)
    phase, speed = rng.uniform(0, 2 * np.pi, (batch, 1, 2)), rng.choice((-1, 1), (batch, 1, 2)) * (0.25, 0.4)
    place = np.round(9 + 8.9 * np.cos(phase + speed * np.arange(T)[:, None])).astype(int)
    clips = np.full((batch, T, 2, 3, 24, 24), 40, np.uint8)
    for i, t in np.ndindex(batch, T):
        y, x = place[i, t]
        clips[i, t, 0, :2, y : y + 6, x : x + 6] = 200
        clips[i, t, 1, 2, x : x + 6, 18 - y : 24 - y] = 150
    return torch.from_numpy(clips)


@cache
def drifts(batch: int, seed: int) -> Tensor:
    """(B, T, 2, 1, 12, 12): a square that steps in random directions on a torus, the same for both views; where it is
    in one tells nothing of the other.
    """
    rng = np.random.default_rng(seed)
    step = np.array([(4, 0), (-4, 0), (0, 4), (0, -4)])[rng.integers(4, size=(batch, T))].cumsum(1)
    place = (step[:, :, None] + rng.integers(3, size=(batch, 1, 2, 2)) * 4) % 12
    clips = np.zeros((batch, T, 2, 1, 12, 12), np.uint8)
    for i, t, v in np.ndindex(batch, T, 2):
        y, x = place[i, t, v]
        clips[i, t, v, 0, y : y + 4, x : x + 4] = 255
    return torch.from_numpy(clips)


def other_sequence(clips: Tensor) -> Tensor:
    """Destroyed content: the second view is of another sequence."""
    return torch.stack([clips[:, :, 0], clips[:, :, 1].roll(1, 0)], dim=2)


def shuffled_time(clips: Tensor) -> Tensor:
    """Destroyed content: the second view shows the moments of each clip in an order of its own."""
    order = torch.rand(clips.shape[:2], generator=generator(7)).argsort(1)
    return torch.stack([clips[:, :, 0], clips[torch.arange(len(clips))[:, None], order, 1]], dim=2)


def accuracy(name, world, destroy=lambda clips: clips, *, steps, **options) -> float:
    """On held-out clips, after a training of so many updates, none for an encoder that no gradient reaches."""
    clips, held_out = destroy(world(256, 1)), destroy(world(64, 2))
    encoder = patch_encoder(tuple(clips.shape[3:]))
    task, draw = build_task(name, encoder, clip_length=T, moments=K, gap=2, **options), generator(3)
    train_on(task, encoder, lambda _: views_of(clips[torch.randint(256, (16,), generator=draw)]), steps=steps, lr=5e-3)
    return measure(task, cut(encoder), views_of(held_out), draws=4)["accuracy"]


OPTIONS = {"tcn": {}, "mftcn": {"frames": 2, "stride": 1, "channels": 8}}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_it_learns_to_find_a_moment_in_another_view(name):
    options = {"steps": 150, **OPTIONS[name]}
    assert accuracy(name, orbits, **options) > 2.5 / K
    assert accuracy(name, orbits, **{**options, "steps": 0}) < 1.6 / K


@pytest.mark.slow
@pytest.mark.parametrize("destroy", [other_sequence, shuffled_time])
@pytest.mark.parametrize("name", OPTIONS)
def test_destroyed_content_stays_at_chance(name, destroy):
    assert abs(accuracy(name, orbits, destroy, steps=150, **OPTIONS[name]) - 1 / K) < 0.4 / K


@pytest.mark.slow
def test_several_frames_tell_motion_and_one_does_not():
    assert accuracy("mftcn", drifts, steps=900, **OPTIONS["mftcn"]) > 2 / K
    assert accuracy("tcn", drifts, steps=300) < 1.3 / K
