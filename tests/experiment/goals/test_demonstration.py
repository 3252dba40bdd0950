"""A demonstration from its recording, or a video, to the agent that imitates it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_help import final, small
from video_help import write_video

import pretrain
import train as script
from agents import SACConfig
from aux_tasks import TaskConfig
from configs.schema import Config, GoalConfig, PretrainConfig
from configs.sources import FramesConfig
from encoders import EncoderConfig
from envs import PointMassConfig
from experiment.goals.env import env_of_run, read_demonstration
from experiment.sources.build import build_source
from experiment.training.build import build
from harness.provenance import read_json
from replay import ReplayConfig

SIZE = 24
WORLD = PointMassConfig(num_envs=3, size=SIZE, time_limit=8, grayscale=False)


@pytest.fixture(autouse=True)
def _in_its_own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def pretrained() -> None:
    """A space in the folder `space`, and a recording of two cameras in `shown`."""
    config = PretrainConfig(
        source=FramesConfig(frames=48, path="shown"),
        env=replace(WORLD, views=["turned"]),
        encoder=EncoderConfig(name="small"),
        aux={"tcn": TaskConfig(options={"clip_length": 7, "moments": 3, "embedding_dim": 4})},
        grayscale=False,
        steps=3,
        batch_size=4,
        device="cpu",
        threads=1,
        run_dir="space",
    )
    assert pretrain.pretrain(config) == 0


def imitating(**goal) -> Config:
    return small(
        Path("run"),
        env=WORLD,
        agent=SACConfig(hidden=8),
        encoder=EncoderConfig(name="state"),
        replay=ReplayConfig(capacity=90, n_step=1),
        goal=GoalConfig(space="space", demonstration="shown", **goal),
        frame_stack=1,
        clip_reward=False,
        eval_episodes=4,
    )


def test_an_agent_imitates_what_a_camera_recorded():
    pretrained()
    recorded = build_source(FramesConfig(frames=48, path="shown"), replace(WORLD, views=["turned"]), 0)
    for view in (0, 1):
        shown = read_demonstration(Path("shown"), view, SIZE)
        np.testing.assert_array_equal(shown, recorded.views[: recorded.end[0], view])
        env = env_of_run(imitating(view=view), Path("run")).build()
        wanted = env._space.embed(shown, shown)
        np.testing.assert_allclose(env.reset(0)[:, 4:, 0, 0], np.tile(wanted[1], (3, 1)), atol=1e-6)
        env.close()
    assert script.train(imitating(view=1)) == 0
    report = read_json(Path("run/report.json"))
    assert len(report["returns"]) == 4
    assert max(report["returns"]) < 0
    assert final(Path("run"))
    assert Path("run/game.mp4").is_file()


def test_a_video_is_a_demonstration(tmp_path):
    colours = [np.full((30, 40, 3), 40 * t, np.uint8) for t in range(5)]
    write_video(tmp_path / "film.mp4", colours)
    shown = read_demonstration(tmp_path / "film.mp4", 0, SIZE)
    assert shown.shape == (5, 3, SIZE, SIZE)
    np.testing.assert_allclose(shown.mean((1, 2, 3)), [0, 40, 80, 120, 160], atol=4)


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"view": 2}, "goal.view=2: shown has 2 views, counted from 0"),
        ({"demonstration": "gone.mp4"}, "gone.mp4"),
        ({"demonstration": "space"}, "space holds no recording"),
    ],
)
def test_what_does_not_fit_is_one_line(goal, message):
    pretrained()
    config = imitating()
    with pytest.raises((ValueError, OSError), match=message):
        build(replace(config, goal=replace(config.goal, **goal)))


@pytest.mark.parametrize("goal", [{"space": None}, {"space": "aux", "observe": "pixels"}, {"observe": "pixels"}])
def test_a_demonstration_needs_a_space_of_its_own(goal):
    with pytest.raises(ValueError, match=r"goal.demonstration needs goal.space"):
        GoalConfig(**{"space": "space", "demonstration": "shown", **goal})
