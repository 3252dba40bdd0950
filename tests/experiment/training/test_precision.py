"""`agent.precision=auto`: settled once, the same after a resume and in a sweep, and nothing depends on the timing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import run_help

from agents import DQNConfig, Precision
from agents.config import Head
from configs.schema import Config
from encoders import EncoderConfig
from envs import BitFlipConfig
from experiment.command_line.composition import read_config
from experiment.training import precision
from replay import ReplayConfig
from replay.config import RelabelConfig


def with_precision(config: Config, name: str, **agent: Any) -> Config:
    assert isinstance(config.agent, DQNConfig)
    return replace(config, agent=replace(config.agent, precision=Precision(name), **agent))


@pytest.fixture(autouse=True)
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """bfloat16 is fast; the list grows with each timing."""
    calls: list[str] = []

    def fast(*_: Any) -> dict[str, float]:
        calls.append("timed")
        return {"float32": 2.0, "bfloat16": 1.0}

    monkeypatch.setattr(precision, "time_precisions", fast)
    monkeypatch.setattr("harness.process.get_cpu_capability", lambda: "AVX512")
    return calls


def test_a_resumed_run_keeps_what_it_began_with(tmp_path: Path, timed: list[str], monkeypatch: Any) -> None:
    open_, explicit = (with_precision(run_help.small(tmp_path / name), name) for name in ("auto", "bfloat16"))
    assert run_help.run(replace(open_, steps=60)) == 0
    assert read_config(tmp_path / "auto/config.yaml", Config).agent.precision == "bfloat16"  # type: ignore[union-attr]
    monkeypatch.setattr("harness.process.get_cpu_capability", lambda: "AVX2")  # another machine
    assert run_help.run(open_) == 0
    assert timed == ["timed"]
    assert run_help.run(replace(explicit, steps=60)) == 0
    assert run_help.run(explicit) == 0
    assert run_help.final(tmp_path / "auto") == run_help.final(tmp_path / "bfloat16")


@pytest.mark.parametrize(
    ("seconds", "capability", "chosen"),
    [((2, 1), "AVX512", "bfloat16"), ((1.05, 1), "AVX512", "float32"), ((2, 1), "AVX2", "float32")],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(
    seconds: tuple[float, float], capability: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = dict(zip(("float32", "bfloat16"), seconds, strict=True))
    monkeypatch.setattr(precision, "time_precisions", lambda *_: measured)
    monkeypatch.setattr("harness.process.get_cpu_capability", lambda: capability)
    assert precision.pick_precision(with_precision(run_help.small(tmp_path), "auto")) == chosen


def test_runs_of_a_sweep_share_one_precision(tmp_path: Path, timed: list[str]) -> None:
    new, begun, later = (with_precision(run_help.small(tmp_path / name), "auto") for name in ("a", "b", "c"))
    assert precision.settle_sweep([new, later], 1) == ["bfloat16", "bfloat16"]
    assert timed == ["timed"]
    assert run_help.run(with_precision(begun, "float32")) == 0
    assert precision.settle_sweep([new, begun, later], 1) == ["float32", None, "float32"]
    assert precision.settle_sweep([begun], 1) == [None]
    assert timed == ["timed"]


def goals(folder: Path) -> Config:
    replay = ReplayConfig(capacity=90, n_step=1, relabel=RelabelConfig(rollout=0.2, future=0.8))
    parts = {"env": BitFlipConfig(num_envs=3), "encoder": EncoderConfig("state"), "frame_stack": 1, "replay": replay}
    return run_help.small(folder, agent=DQNConfig(hidden=8, head=Head.implicit, quantiles=3), **parts)


@pytest.mark.parametrize("kind", [run_help.hard, run_help.continuous, goals])
def test_every_kind_of_agent_can_be_timed(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("harness.process.get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(precision, "ROUNDS", 2)
    assert precision.pick_precision(kind(tmp_path)) in ("float32", "bfloat16")


def test_a_compiled_agent_is_not_timed() -> None:
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        DQNConfig(precision=Precision.auto, compile=True)
