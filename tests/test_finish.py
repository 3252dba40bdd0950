"""What a finished run leaves is completed by the same command, whatever happened to it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import run_help
from run_help import run
from safetensors.torch import load_file

import pretrain
from aux_tasks import TaskConfig
from configs.schema import Config, PretrainConfig
from configs.sources import BallsConfig
from encoders import EncoderConfig
from envs import ToyConfig
from experiment.folders.run_folder import claim_run_dir
from experiment.pretraining import ending as pretraining_ending
from experiment.pretraining import run as pretraining
from experiment.training import ending
from harness.checkpoint import CheckpointError
from harness.files import sha256

LEFT = ("agent.safetensors", "encoder.safetensors", "report.json", "game.mp4")


def config(run_dir: Path, **changes: Any) -> Config:
    return run_help.small(run_dir, **{"steps": 48, "eval_episodes": 2, **changes})


def check(run_dir: Path, steps: int) -> None:
    """All is there, and of the same weights."""
    report, weights = json.loads((run_dir / "report.json").read_text()), run_dir / "agent.safetensors"
    assert report["sha256"] == {"agent.safetensors": sha256(weights)}
    assert sha256(weights).encode() in (run_dir / "game.mp4").read_bytes()
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    (row,) = (row for row in lines if row["step"] == steps and "eval/mean_reward" in row)
    assert row["eval/mean_reward"] == report["summary"]["mean"]
    agent = load_file(weights)
    for name, tensor in load_file(run_dir / "encoder.safetensors").items():
        assert agent[f"encoder.{name}"].equal(tensor)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def drop_last_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def test_what_is_missing_or_torn_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(config(tmp_path)) == 0
    check(tmp_path, 48)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in LEFT}
    assert run(config(tmp_path)) == 0
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in LEFT}, "made again without need"
    damages: list[tuple[str, Callable[[Path], None]]] = [
        (name, kind) for name in LEFT for kind in (Path.unlink, truncate)
    ]
    for name, damage in [*damages, ("metrics.jsonl", drop_last_line), ("metrics.jsonl", truncate)]:
        damage(tmp_path / name)
        assert run(config(tmp_path)) == 0
        check(tmp_path, 48)


@pytest.mark.parametrize("stage", ["export", "evaluate", "write_report", "eval_scores", "play_moments", "write_video"])
def test_an_interruption_at_any_stage_is_made_good(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(config(tmp_path)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(ending, stage, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path, steps=96))
    assert run(config(tmp_path, steps=96)) == 0
    check(tmp_path, 96)


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_more_episodes_are_played_when_asked_for(tmp_path: Path) -> None:
    assert run(config(tmp_path, eval_episodes=0)) == 0
    assert not (tmp_path / "report.json").exists()
    truncate(tmp_path / "agent.safetensors")
    assert run(config(tmp_path, eval_episodes=0)) == 0
    load_file(tmp_path / "agent.safetensors")
    for episodes in (2, 3):
        assert run(config(tmp_path, eval_episodes=episodes)) == 0
        assert len(json.loads((tmp_path / "report.json").read_text())["returns"]) == episodes


def full_disk(*_: Any) -> None:
    raise CheckpointError("disk full")


def test_a_pretraining_is_completed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"threads": 1, "device": "cpu", "batch_size": 4, "run_dir": str(tmp_path)}
    source = BallsConfig(episodes=6, length=5, size=16)
    aux = {"rotation": TaskConfig(options={"hidden": 4})}

    def pretrained(steps: int) -> int:
        return pretrain.pretrain(
            PretrainConfig(source, ToyConfig(), EncoderConfig("small"), aux, steps=steps, **settings)
        )

    def left(step: str) -> None:
        assert f'"{step}/' in (tmp_path / "projector_config.pbtxt").read_text()
        assert (tmp_path / "attribution" / "moment_0.png").stat().st_size > 0
        load_file(tmp_path / "encoder.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "save", full_disk)
        with pytest.raises(CheckpointError, match="saved up to step 0"):
            pretrained(3)
    assert pretrained(3) == 0
    left("00003")
    stages = {
        "export_encoder": pretraining,
        "write_attribution": pretraining_ending,
        "write_projector": pretraining_ending,
    }
    for stage, module in stages.items():
        with monkeypatch.context() as patch:
            patch.setattr(module, stage, interrupt)
            with pytest.raises(KeyboardInterrupt):
                pretrained(5)
    assert pretrained(5) == 0
    left("00005")
    truncate(tmp_path / "encoder.safetensors")
    (tmp_path / "attribution" / "moment_0.png").unlink()
    assert pretrained(5) == 0
    left("00005")
    with claim_run_dir(PretrainConfig(source, ToyConfig(), EncoderConfig("small"), aux, steps=5, **settings)):
        pass  # none of this is what a run does not leave
