"""BiGAN: both sides of the game in closed form, whose weights move, and that E comes to invert G."""

import numpy as np
import pytest
import torch
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import build_task, digits, measure, train_on
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from aux_tasks.image.adversary import Discriminator, call_frozen
from encoders import Encoder

B, SHAPE, Z = 5, (2, 12, 16), 3


def task_of():
    encoder = tiny_encoder(SHAPE, 4)
    task = build_task("bigan", encoder, latent_dim=Z, channels=2)
    task.adversary.eval()  # its normalisation holds still
    return task, encoder


def drawn(task, size):
    """The latents that the task draws next, without moving its stream."""
    return torch.rand(size, Z, generator=task.generator.clone_state()) * 2 - 1


def test_the_losses_of_both_sides_against_a_loop():
    task, encoder = task_of()
    obs = noise(B, *SHAPE)
    batch = batch_of(obs)
    for side in ("encoder", "adversary"):
        z = drawn(task, B)
        image, latent = (obs + 0.5) / 256 - 0.5, task.to_latent(encoder(obs))
        real, generated = task.adversary(image, latent).tolist(), task.adversary(task.generate(z), z).tolist()
        if side == "encoder":
            loss = task.loss(batch, encoder(obs), encoder).loss
            expected = [np.log(1 + np.exp(r)) + np.log(1 + np.exp(-g)) for r, g in zip(real, generated, strict=True)]
            np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=1e-4)
        else:
            wrong = [np.log(1 + np.exp(-r)) + np.log(1 + np.exp(g)) for r, g in zip(real, generated, strict=True)]
            assert float(task.adversary_loss(batch, encoder).detach()) == pytest.approx(np.mean(wrong), rel=1e-4)


def test_the_metrics_against_a_loop():
    task, encoder = task_of()
    obs = noise(B, *SHAPE)
    z, clean = drawn(task, B), ((obs + 0.5) / 256 - 0.5)
    latent = task.to_latent(encoder(obs))
    rebuilt = task.generate(latent).detach()
    told = [float(logit) > 0 for logit in task.adversary(clean, latent).detach()]
    told += [float(logit) <= 0 for logit in task.adversary(task.generate(z), z).detach()]
    metrics = task.loss(batch_of(obs), encoder(obs), encoder).metrics
    ratio = (rebuilt - clean).square().mean() / clean.var(0, correction=0).mean()
    assert float(metrics["error_ratio"]) == pytest.approx(float(ratio), rel=1e-4)
    assert float(metrics["adversary_accuracy"]) == pytest.approx(np.mean(told))
    nearest = [min(range(B), key=lambda j: float((rebuilt[i] - clean[j]).square().sum())) for i in range(B)]
    assert float(metrics["accuracy"]) == pytest.approx(np.mean([i == j for i, j in enumerate(nearest)]))
    assert float(metrics["chance"]) == pytest.approx(1 / B)


def test_an_undecided_discriminator_costs_both_sides_two_bits():
    task, encoder = task_of()
    task.adversary.classifier.append(nn.Linear(1, 1))
    nn.init.zeros_(task.adversary.classifier[-1].weight)
    nn.init.zeros_(task.adversary.classifier[-1].bias)
    batch = batch_of(noise(B, *SHAPE))
    for loss in (task.loss(batch, encoder(batch.obs), encoder).loss, task.adversary_loss(batch, encoder)):
        assert float(loss.mean().detach()) == pytest.approx(2 * np.log(2))


def test_each_side_of_the_game_moves_its_own_weights():
    task, encoder = task_of()
    batch, rivals = batch_of(noise(B, *SHAPE)), list(task.adversary.parameters())
    apart = {id(p) for p in rivals}
    others = [*encoder.parameters(), *(p for p in task.parameters() if id(p) not in apart)]
    task.loss(batch, encoder(batch.obs), encoder).loss.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in others)
    assert all(p.grad is None and p.requires_grad for p in rivals)
    for module in (encoder, task):
        module.zero_grad()
    task.adversary_loss(batch, encoder).backward()
    assert all(p.grad is not None and p.grad.any() for p in rivals)
    assert all(p.grad is None for p in others)


def test_a_frozen_module_passes_the_gradient_on_and_keeps_none():
    net = nn.Linear(3, 1)
    x = torch.randn(4, 3, requires_grad=True)
    output = call_frozen(net, x)
    torch.testing.assert_close(output, net(x))
    output.sum().backward()
    torch.testing.assert_close(x.grad, net.weight.detach().expand(4, 3))
    assert net.weight.grad is None
    assert net.bias.grad is None


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 28, 28), (3, 32, 40), (4, 84, 84)])
def test_the_discriminator_fits_every_image_and_reads_samples_by_themselves(shape):
    torch.manual_seed(0)
    discriminator = Discriminator(shape, Z).eval()
    image, latent = torch.rand(4, *shape) - 0.5, torch.rand(4, Z)
    logits = discriminator(image, latent)
    assert logits.shape == (4,)
    alone = [discriminator(image[i : i + 1], latent[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(torch.cat(alone), logits)
    assert not torch.equal(discriminator(image, latent.flip(0)), logits)
    assert Discriminator(shape)(image).shape == (4,)


def test_spectral_norms_follow_the_weights_in_advance_alone():
    torch.manual_seed(0)
    discriminator = Discriminator((1, 12, 12), Z).train()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter += torch.rand_like(parameter)
    before = [buffer.clone() for buffer in discriminator.buffers()]
    discriminator(torch.rand(4, 1, 12, 12), torch.rand(4, Z)).sum().backward()
    assert all(torch.equal(p, q) for p, q in zip(discriminator.buffers(), before, strict=True))
    for _ in range(50):
        discriminator.advance()
    layers = [layer for layer in discriminator.modules() if is_parametrized(layer)]
    assert len(layers) == 3
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=1e-3)


def test_a_code_moves_the_discriminator_as_much_as_an_image_does():
    torch.manual_seed(0)
    discriminator = Discriminator((1, 28, 28), 16).eval()
    pair = (torch.rand(8, 1, 28, 28) - 0.5).requires_grad_(), (2 * torch.rand(8, 16) - 1).requires_grad_()
    slopes = torch.autograd.grad(discriminator(*pair).sum(), pair)
    image, latent = (float((slope.norm() * x.norm()).detach()) for slope, x in zip(slopes, pair, strict=True))
    assert 0.5 < latent / image < 2  # 0.12 where it is not stretched


def test_latents_fill_their_cube():
    z = task_of()[0]._prior(2000)
    assert z.min() >= -1
    assert z.max() <= 1
    torch.testing.assert_close(z.std(0), torch.full((Z,), 3**-0.5), atol=0.03, rtol=0)
    assert float(z.mean()) == pytest.approx(0, abs=0.05)


def test_examples_are_rebuilt_and_dreamt():
    task, encoder = task_of()
    obs, z = noise(B, *SHAPE), drawn(task, B)
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.inputs[0::3], obs[:4])
    for k, latent in ((1, task.to_latent(encoder(obs))), (2, z)):
        expected = ((task.generate(latent)[:4] + 0.5) * 256).detach().clamp(0, 255)
        assert (shown.inputs[k::3] - expected).abs().max() <= 1
    assert shown.predicted == ["input", "rebuilt", "dreamt"] * 4


def test_a_latent_without_dimensions_is_refused():
    with pytest.raises(ValueError, match="latent_dim must be positive, got 0"):
        build_task("bigan", tiny_encoder(SHAPE, 4), latent_dim=0)


class Torn(nn.Module):
    """The code of each image is that of its neighbour in the batch."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, obs):
        return self.encoder(obs).roll(1, 0)


def played(training, seed=0):
    """The metrics on unseen digits before and after 2,000 updates with what `training` makes of the encoder."""
    torch.manual_seed(seed)
    trunk = nn.Sequential(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU())
    encoder = Encoder(trunk, nn.Linear(512, 64), (1, 8, 8))
    task = build_task("bigan", encoder, latent_dim=16)
    seen, unseen = digits(0, 1400, size=8), batch_of(digits(1400, 1797, size=8))
    before = measure(task, encoder, unseen, draws=1)
    order = torch.randint(1400, (2000, 64), generator=generator(4))
    train_on(task, training(encoder), lambda step: batch_of(seen[order[step]]), steps=2000, lr=2e-4)
    return before, measure(task, encoder, unseen, draws=1)


@pytest.mark.slow
def test_the_encoder_comes_to_invert_the_generator_on_unseen_digits():
    before, after = played(lambda encoder: encoder)
    assert before["accuracy"] < 2 * before["chance"]
    assert after["accuracy"] > 100 * after["chance"]
    assert after["error_ratio"] < 0.8


@pytest.mark.slow
def test_codes_of_other_images_teach_nothing_of_an_own_one():
    _, after = played(Torn)
    assert after["accuracy"] < 4 * after["chance"]
