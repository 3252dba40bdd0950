"""The command of a day with a GPU, in a tiny form on the CPU."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

TOY = (
    "env=toy env.num_envs=4 encoder=der agent.hidden=8 replay.capacity=2000 replay.n_step=1 learning_starts=40 "
    "diagnose_every=0 log_every=40"
)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    return import_module("gpu")


def test_its_command_lines_are_of_this_suite(gpu):
    words = [*gpu.UPDATES.values(), *(words for words, *_ in gpu.SPEEDS.values()), *gpu.LEARNING.values()]
    for each in words:
        config = gpu.config_of("config", [*each.split(), gpu.ARMS["captured"]], gpu.Config)
        assert config.replay.storage == ("ram" if each.endswith("ram") else "cuda")


@pytest.fixture
def script(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "UPDATES", {"DQN": TOY, "wrong": f"{TOY} aux=nothing"})
    monkeypatch.setattr(gpu, "SPEEDS", {"two runs": (TOY, 2, tuple(gpu.ARMS))})
    monkeypatch.setattr(gpu, "LEARNING", {"toy": f"{TOY} steps=80 eval_episodes=2"})
    monkeypatch.setattr(gpu, "run_tests", lambda session: session.note("tests", "gpu", {"summary": "none"}))
    words = ["minutes=4", "device=cpu", "updates=2", "seconds=1", f"out={tmp_path}", f"runs={tmp_path / 'runs'}"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    return gpu


@pytest.mark.slow
def test_it_measures_everything_once(script, tmp_path, capsys):
    script.main()
    found = json.loads((tmp_path / "gpu.json").read_text())
    for arm in script.ARMS:
        assert found["updates"]["DQN"][arm]["update_ms"] > 0
        assert found["speeds"]["two runs"][arm]["steps_per_second"] > 0
    assert "unknown" in found["updates"]["wrong"]["error"]
    assert found["learning"]["toy"]["step"] == 80
    assert found["learning"]["toy"]["report"]["summary"]["mean"] >= -1
    assert "| DQN | eager |" in capsys.readouterr().out
    script.UPDATES.pop("wrong")
    script.main()
    assert json.loads((tmp_path / "gpu.json").read_text()) == found
