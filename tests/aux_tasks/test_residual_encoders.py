"""Tasks on a residual network, whose normalisation must not let a loss move anything."""

from typing import Any

import pytest
import torch
from aux_help import generator

from aux_tasks import AuxSuite, TaskConfig, TaskSetting
from encoders import EncoderConfig, build_encoder, fit_moments
from replay import Batch

SHAPE = (3, 32, 32)


@pytest.mark.parametrize(
    ("task", "options"), [("bigan", {"channels": 4, "latent_dim": 3}), ("byol", {"hidden": 8, "projection_dim": 4})]
)
def test_a_loss_moves_nothing_and_reaches_every_layer(task: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig("resnet18", layer_norm=False), SHAPE)
    setting = TaskSetting(encoder, 1, None, 0, 0.9, generator(2))
    suite = AuxSuite(
        {task: TaskConfig(options=options)}, setting, learning_rate=2e-4, adam_eps=1e-8, max_grad_norm=10.0
    )
    obs, nothing = torch.randint(256, (6, *SHAPE), dtype=torch.uint8), torch.empty(0)
    batch = Batch(obs, nothing, nothing, nothing, nothing, nothing, torch.ones(6), torch.arange(6))
    for module in (encoder, suite):
        fit_moments(module, obs)
    both = torch.nn.ModuleDict({"encoder": encoder, "suite": suite}).train()
    before = {name: tensor.clone() for name, tensor in both.state_dict().items()}
    optimizer = torch.optim.Adam(encoder.parameters(), 2e-4)
    for update in range(2):
        terms, _ = suite.losses(batch, encoder(obs), encoder)
        if not update:
            assert all(torch.equal(tensor, before[name]) for name, tensor in both.state_dict().items())
        terms[task].mean().backward()
        assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())
        optimizer.step()
        optimizer.zero_grad()
        suite.after_step(batch, encoder)
    moved = {name for name, tensor in both.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "encoder.trunk.conv1.weight" in moved
    assert not {name for name in moved if "running" in name or "num_batches" in name}
    if task == "byol":  # the momentum copy was normalised by the same batch
        copies = {name: tensor for name, tensor in both.state_dict().items() if "target_encoder" in name}
        assert any(tensor.any() for name, tensor in copies.items() if "running_mean" in name)
