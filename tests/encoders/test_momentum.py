"""Momentum copies: a mark that survives, and the pace at which they follow."""

from copy import deepcopy

import pytest
import torch
from encoder_help import make
from torch import nn

from agents.base import acting_weights
from aux_tasks import TaskSetting
from aux_tasks.control.curl import CURL
from encoders.momentum import follow, is_momentum_copy, momentum_copy


def test_a_copy_is_equal_apart_marked_and_without_gradient():
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    copy = momentum_copy(module)
    for p, q in zip(module.parameters(), copy.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.data_ptr() != q.data_ptr()
        assert p.requires_grad
        assert not q.requires_grad
    assert is_momentum_copy(copy)
    assert is_momentum_copy(deepcopy(copy))
    assert not is_momentum_copy(module)
    assert copy.state_dict().keys() == module.state_dict().keys()


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_a_copy_keeps_the_share_of_its_momentum(momentum):
    module, copy = nn.Linear(3, 2), momentum_copy(nn.Linear(3, 2))
    expected = {name: momentum * p + (1 - momentum) * module.state_dict()[name] for name, p in copy.named_parameters()}
    follow(copy, module, momentum)
    torch.testing.assert_close(copy.state_dict(), expected)
    curl = CURL(TaskSetting(make("control", (3, 24, 24)), 1, None, 2, 0.99, torch.Generator()))
    assert curl.momentum**2 == pytest.approx(1 - 0.05, abs=1e-4)  # two updates keep what the authors' one of two does


def test_exported_weights_leave_out_what_is_marked_whatever_its_name():
    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(2, 2)
            self.target_pose = nn.Linear(2, 1)  # a head
            self.heads = nn.ModuleDict({"target_pose": nn.Linear(2, 1)})
            self.keys = momentum_copy(self.encoder)
            self.key = nn.Linear(2, 1)

    weights = acting_weights(Agent())
    named = {name.rpartition(".")[0] for name in weights}
    assert named == {"encoder", "target_pose", "heads.target_pose", "key"}
