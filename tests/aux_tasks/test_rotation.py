"""Rotation against torch.rot90, one sample at a time."""

import pytest
import torch
from aux_help import batch_of, make_task, noise, tiny_encoder

SHAPE = (6, 10, 10)


def test_each_sample_turns_by_its_own_label_exactly():
    obs = noise(9, *SHAPE)
    label = torch.tensor([0, 1, 2, 3, 3, 1, 0, 2, 1])
    turned = make_task("rotation", tiny_encoder(SHAPE)).transform(obs, label)
    assert turned.dtype == torch.uint8
    for i in range(9):
        for channel in range(6):
            assert torch.equal(turned[i, channel], torch.rot90(obs[i, channel], int(label[i])))


def test_examples_name_the_angle_that_was_applied():
    obs, encoder = noise(11, *SHAPE), tiny_encoder(SHAPE)
    shown = make_task("rotation", encoder).examples(batch_of(obs), encoder)
    assert len(shown.inputs) == len(shown.correct) == len(shown.predicted) == 8
    assert len(set(shown.correct)) > 1
    for i, angle in enumerate(shown.correct):
        assert torch.equal(shown.inputs[i], torch.rot90(obs[i], int(angle) // 90, dims=(1, 2)))


def test_all_rotations_of_each_observation_against_a_loop():
    obs, encoder = noise(5, *SHAPE), tiny_encoder(SHAPE)
    task = make_task("rotation", encoder, all_rotations=True, crop_rows=[2, 9])
    state = task.generator.get_state()
    output, shown = task.loss(batch_of(obs), torch.empty(0), encoder), task.examples(batch_of(obs), encoder)
    hits = []
    for i in range(5):
        turned = torch.stack([torch.rot90(task._crop(obs)[i], k, dims=(1, 2)) for k in range(4)])
        logits = task.head(encoder(turned)).detach()
        hits += (logits.argmax(1) == torch.arange(4)).tolist()
        loss = -logits.log_softmax(1).diagonal().mean()
        assert float(output.loss[i].detach()) == pytest.approx(float(loss), rel=1e-4)
        assert i > 1 or torch.equal(shown.inputs[4 * i : 4 * i + 4], turned)
    assert float(output.metrics["accuracy"]) == pytest.approx(sum(hits) / 20)
    assert shown.correct == ["0", "90", "180", "270"] * 2
    assert torch.equal(task.generator.get_state(), state)


def test_one_rotation_of_each_observation_is_the_first_draw():
    obs, encoder = noise(9, *SHAPE), tiny_encoder(SHAPE)
    task = make_task("rotation", encoder)
    label = torch.randint(4, (9,), generator=task.generator.clone_state())
    inputs, drawn = task._draw(obs)
    assert torch.equal(drawn, label)
    assert torch.equal(inputs, task.transform(obs, label))


def test_without_hidden_units_the_head_is_linear():
    encoder = tiny_encoder(SHAPE)
    (layer,) = make_task("rotation", encoder, hidden=0).head
    assert (layer.in_features, layer.out_features) == (encoder.feature_dim, 4)


def test_oblong_observations_are_refused():
    with pytest.raises(ValueError, match="rotation needs square observations, got 10x12"):
        make_task("rotation", tiny_encoder((4, 10, 12)))
