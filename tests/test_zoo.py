"""The published agents and goal spaces are what their reports say."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.schema import PretrainConfig
from experiment.command_line.composition import read_config
from experiment.goals.space import TaskSpace
from experiment.training.build import load_agent

ZOO = Path(__file__).parents[1] / "zoo"
AGENTS = sorted(ZOO.glob("*/agent.safetensors"))
SPACES = sorted(
    path for path in ZOO.glob("*/goal_space.safetensors") if path.with_name("agent.safetensors") not in AGENTS
)


def checked_report(weights: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((weights.parent / "report.json").read_text())
    assert report["sha256"] == {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert weights.stat().st_size <= 5e6
    return report


@pytest.mark.parametrize("weights", AGENTS, ids=lambda path: path.parent.name)
def test_an_agent_of_the_zoo_loads_and_is_the_one_that_was_measured(weights: Path) -> None:
    report = checked_report(weights)
    config, _ = load_agent(weights.parent)
    assert report["frame_stack"] == config.frame_stack
    assert report["summary"]["n"] == len(report["returns"]) == 100


@pytest.mark.parametrize("weights", SPACES, ids=lambda path: path.parent.name)
def test_a_goal_space_of_the_zoo_loads_and_is_the_one_that_was_measured(weights: Path) -> None:
    report, config = checked_report(weights), read_config(weights.parent / "config.yaml", PretrainConfig)
    space = TaskSpace.load(weights, torch.device("cpu"))
    assert type(space.task).__name__.lower() in config.aux
    assert report["scores"]


def test_every_folder_of_the_zoo_is_tested() -> None:
    assert sorted(path.parent for path in [*AGENTS, *SPACES]) == sorted(path for path in ZOO.iterdir() if path.is_dir())
