"""The published agents are what their reports say."""

import hashlib
import json
from pathlib import Path

import pytest

from experiment.build import load_agent

ZOO = sorted((Path(__file__).parents[1] / "zoo").glob("*/"))


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder.name)
def test_an_agent_of_the_zoo_loads_and_is_the_one_that_was_measured(folder: Path) -> None:
    weights, report = folder / "agent.safetensors", json.loads((folder / "report.json").read_text())
    assert report["sha256"] == {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert weights.stat().st_size <= 5e6
    config, _ = load_agent(folder)
    assert report["frame_stack"] == config.frame_stack
    assert report["summary"]["n"] == len(report["returns"]) == 100
