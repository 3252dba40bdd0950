"""Context encoder: the regions, the loss on them alone, the discriminator's side, and that digits are completed."""

import numpy as np
import pytest
import torch
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import build_task, digits, measure, scrambled, small_encoder, train_on
from torch import nn

B, SHAPE = 5, (6, 12, 16)


def task_of(**options):
    encoder = tiny_encoder(SHAPE, 4)
    return build_task("context_encoder", encoder, **{"channels": 2} | options), encoder


def drawn(task, obs):
    """The regions and the inputs that the task draws next, without moving its stream."""
    state = task.generator.get_state()
    missing, holed = task._holed(obs)
    task.generator.set_state(state)
    return missing, holed


@pytest.mark.parametrize("share", [0.25, 0.6])
def test_random_regions_have_their_share_and_differ(share):
    task, _ = task_of(share=share)
    missing = task.missing(noise(200, *SHAPE))
    assert missing.shape == (200, 1, 12, 16)
    assert (missing.sum((1, 2, 3)) - share * 12 * 16).abs().max() <= 1
    assert len(missing.flatten(1).unique(dim=0)) == 200
    often = missing.float().mean(0)[0]
    assert often.min() > share / 3  # no place is safe
    edges = (missing[..., 1:] != missing[..., :-1]).float().mean()
    assert edges < 0.6 * 2 * share * (1 - share)  # regions, not single pixels


def test_the_centre_is_a_rectangle_of_the_share():
    task, _ = task_of(region="centre", share=0.25)
    missing = task.missing(noise(B, *SHAPE))
    expected = torch.zeros(B, 1, 12, 16, dtype=torch.bool)
    expected[:, :, 3:9, 4:12] = True
    assert torch.equal(missing, expected)


def test_what_is_missing_is_filled_with_the_mean_colour_in_every_frame():
    task, _ = task_of()
    obs = noise(B, *SHAPE)
    missing, holed = task._holed(obs)
    for i in range(B):
        for channel in range(SHAPE[0]):
            mean = round(float(obs[:, channel].double().mean()))
            assert (holed[i, channel][missing[i, 0]] == mean).all()
            assert torch.equal(holed[i, channel][~missing[i, 0]], obs[i, channel][~missing[i, 0]])


@pytest.mark.parametrize("adversarial", [0.0, 0.3])
def test_the_loss_against_a_loop(adversarial):
    task, encoder = task_of(adversarial=adversarial)
    if adversarial:
        task.adversary.eval()  # its normalisation holds still
    obs = noise(B, *SHAPE)
    missing, holed = drawn(task, obs)
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    decoded = task.decoder(encoder(holed)).detach()
    clean, errors, baselines = (obs.double().numpy() + 0.5) / 256 - 0.5, [], []
    for i in range(B):
        places = [(c, y, x) for c, y, x in np.ndindex(*SHAPE) if missing[i, 0, y, x]]
        errors.append(np.mean([(float(decoded[(i, *p)]) - clean[(i, *p)]) ** 2 for p in places]))
        baselines.append(np.mean([(clean[(slice(None), *p)].mean() - clean[(i, *p)]) ** 2 for p in places]))
        expected = errors[i]
        if adversarial:
            logit = float(task.adversary(torch.where(missing, decoded, 0))[i].detach())
            expected = 0.7 * expected + 0.3 * np.log(1 + np.exp(-logit))
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4)
    assert float(output.metrics["error_ratio"]) == pytest.approx(np.mean(errors) / np.mean(baselines), rel=1e-4)
    assert ("fooled" in output.metrics) == bool(adversarial)


def test_the_discriminator_sees_fillings_without_their_context():
    task, encoder = task_of(adversarial=0.5)
    seen = []

    class Undecided(nn.Module):
        def forward(self, image):
            seen.append(image)
            return torch.zeros(len(image))

    task.adversary = Undecided()
    obs = noise(B, *SHAPE)
    missing, holed = drawn(task, obs)
    loss = task.adversary_loss(batch_of(obs), encoder)
    assert float(loss) == pytest.approx(2 * np.log(2))
    real, filling = seen
    inside = missing.expand_as(obs)
    torch.testing.assert_close(real[inside], (obs[inside] + 0.5) / 256 - 0.5)
    torch.testing.assert_close(filling[inside], task.decoder(encoder(holed)).detach()[inside])
    assert not real[~inside].any()
    assert not filling[~inside].any()
    missing, _ = drawn(task, obs)
    task.loss(batch_of(obs), torch.empty(0), encoder)
    assert not seen[2][~missing.expand_as(obs)].any()


def test_each_side_of_the_game_moves_its_own_weights():
    task, encoder = task_of(adversarial=0.5)
    batch, rivals = batch_of(noise(B, *SHAPE)), list(task.adversary.parameters())
    task.loss(batch, torch.empty(0), encoder).loss.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in [*encoder.parameters(), *task.decoder.parameters()])
    assert all(p.grad is None and p.requires_grad for p in rivals)
    encoder.zero_grad()
    task.zero_grad()
    task.adversary_loss(batch, encoder).backward()
    assert all(p.grad is not None and p.grad.any() for p in rivals)
    assert all(p.grad is None for p in [*encoder.parameters(), *task.decoder.parameters()])


def test_there_is_no_discriminator_unless_asked_for():
    assert task_of()[0].adversary is None


def test_examples_show_the_hole_and_its_filling():
    task, encoder = task_of()
    obs = noise(B, *SHAPE)
    missing, holed = drawn(task, obs[:4])
    shown = task.examples(batch_of(obs), encoder)
    whole, given, filled = (shown.inputs[k::3] for k in range(3))
    assert torch.equal(whole, obs[:4])
    assert torch.equal(given, holed)
    kept = ~missing.expand_as(whole)
    assert torch.equal(filled[kept], whole[kept])
    assert shown.predicted == ["whole", "input", "filled"] * 4


@pytest.mark.parametrize(("destroyed", "steps"), [(False, 120), (True, 120), (False, 0)])
def test_digits_are_completed_unless_their_pixels_were_scrambled(destroyed, steps):
    def draw(step):
        obs = digits(0, 64, size=12)
        return batch_of(scrambled(obs, seed=step) if destroyed else obs)

    encoder = tiny_encoder((1, 12, 12), 32)
    task = build_task("context_encoder", encoder, channels=16)
    train_on(task, encoder, draw, steps=steps, lr=3e-3)
    ratio = measure(task, encoder, draw(999))["error_ratio"]
    assert ratio > 0.9 if destroyed or not steps else ratio < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("adversarial", [0.0, 0.001])
def test_unseen_digits_are_completed(adversarial):
    encoder, seen = small_encoder((1, 28, 28)), digits(0, 1400)
    task = build_task("context_encoder", encoder, adversarial=adversarial)
    order = torch.randint(1400, (200, 32), generator=generator(4))
    train_on(task, encoder, lambda step: batch_of(seen[order[step]]), steps=200)
    assert measure(task, encoder, batch_of(digits(1400, 1797)))["error_ratio"] < 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"region": "center"}, "region must be one of .* did you mean 'centre'"),
        ({"share": 0.0}, "share must be between 0 and 1, got 0.0"),
        ({"share": 1.0}, "share must be between 0 and 1, got 1.0"),
        ({"grain": 1}, "grain must be at least 2, got 1"),
        ({"adversarial": 1.0}, "adversarial must be 0 or more and below 1, got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        task_of(**options)
