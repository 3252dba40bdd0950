"""Every source from its config to a pretraining: what is recorded, used again, refused, and drawn."""

import errno
import fcntl
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_help
from source_help import STEPS, TOY, frames, idx_folder, image_folder, multiview_folder, pretraining, video_folder

import experiment.sources.build as module
import pretrain as script
from configs.schema import PretrainConfig
from configs.sources import (
    SOURCES,
    BallsConfig,
    FramesConfig,
    IdxConfig,
    ImagesConfig,
    MultiviewConfig,
    ReplayRunConfig,
    SourceConfig,
    TripletsConfig,
    VideosConfig,
)
from envs import AtariConfig, EnvConfig, GraspingConfig, Observation, PointMassConfig, ToyConfig
from envs.toy import BALL_GRAY, GRID, PADDLE, PADDLE_GRAY, ToyVector
from experiment.command_line.composition import Composed, freeze, write_config
from experiment.launching.launch import launch
from experiment.sources.build import build_source
from harness.checkpoint import CheckpointError, save
from harness.seeding import derive

# --- frames ---


def test_a_recording_is_what_each_copy_shows(tmp_path: Path) -> None:
    episodes = build_source(frames(tmp_path), TOY, seed=4)
    assert episodes.num_actions == 3
    assert episodes.action is not None
    assert episodes.reward is not None
    assert set(episodes.action) == {0, 1, 2}
    env = TOY.build()
    frame, begin = env.reset(derive(4, "record/env")), {0, STEPS, 2 * STEPS}
    for t in range(STEPS):
        rows = np.arange(3) * STEPS + t
        np.testing.assert_array_equal(episodes.frames[rows], frame)
        step = env.step(episodes.action[rows])
        np.testing.assert_array_equal(episodes.reward[rows], step.reward)
        if t + 2 < STEPS:  # after the last frame of a game comes the first of the next
            begin |= set((rows[step.game_over] + 2).tolist())
        frame = step.frame
    assert len(begin) > 6
    assert episodes.begin.tolist() == sorted(begin)
    assert episodes.end.tolist() == [*episodes.begin[1:], 3 * STEPS]  # what still ran was cut


def test_labels_belong_to_their_frames(tmp_path: Path) -> None:
    labels = (episodes := build_source(frames(tmp_path), TOY, seed=0)).labels
    for row, cells in enumerate(episodes.frames[:, 0, ::3, ::3]):
        assert cells[labels["ball_y"][row], labels["ball_x"][row]] == BALL_GRAY
        paddle = labels["paddle"][row]
        assert set(cells[GRID - 1, paddle : paddle + PADDLE]) <= {PADDLE_GRAY, BALL_GRAY}
    assert labels["drift"].dtype == np.float32


def test_continuous_actions_and_what_they_did(tmp_path: Path) -> None:
    episodes = build_source(frames(tmp_path, 60), PointMassConfig(num_envs=2), seed=0)
    assert episodes.action is not None
    assert (episodes.action.shape, episodes.action.dtype, episodes.num_actions) == ((60, 2), np.float32, None)
    place = np.stack([episodes.labels["x"], episodes.labels["y"]], axis=1)
    np.testing.assert_allclose(place[1:30], np.clip(place[:29] + 0.2 * episodes.action[:29], -1, 1), atol=1e-6)


def test_further_views_are_recorded_beside_their_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that tell which frame they belong to: its negative."""
    reset, step = ToyVector.reset, ToyVector.step
    monkeypatch.setattr(ToyVector, "num_views", 2)
    monkeypatch.setattr(ToyVector, "reset", lambda self, seed: setattr(self, "shown", reset(self, seed)) or self.shown)
    monkeypatch.setattr(
        ToyVector, "step", lambda self, a: (moment := step(self, a), setattr(self, "shown", moment.frame))[0]
    )
    monkeypatch.setattr(ToyVector, "views", lambda self: np.stack([255 - self.shown, 1 + self.shown], axis=1))
    episodes = build_source(frames(tmp_path), TOY, seed=0)
    assert episodes.views is not None
    for v, shown in enumerate([episodes.frames, 255 - episodes.frames, 1 + episodes.frames]):
        np.testing.assert_array_equal(episodes.views[:, v], shown)


def test_one_config_is_one_recording_and_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_source(frames(tmp_path), TOY, seed=0)
    twin = build_source(frames(tmp_path / "twin"), TOY, seed=0)
    other = build_source(frames(tmp_path / "other"), TOY, seed=1)
    monkeypatch.setattr(module, "record", None)
    again = build_source(frames(tmp_path), TOY, seed=0)
    for name in ("frames", "action", "reward", "begin"):
        np.testing.assert_array_equal(getattr(first, name), getattr(twin, name))
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.labels.keys() == again.labels.keys()
    assert (first.frames != other.frames).any()


@pytest.mark.parametrize(
    ("changes", "env", "seed", "message"),
    [
        ({"count": 160}, TOY, 0, "was recorded with source.frames=150, this one has 160: give source.path"),
        ({}, replace(TOY, size=48), 0, "env.size=36, this one has 48"),
        ({}, TOY, 3, "seed=0, this one has 3"),
        ({}, AtariConfig(), 0, "env=toy, this one has atari"),
        ({"policy": "zoo/nobody"}, TOY, 0, "source.policy=zoo/nobody: must be random, a run folder or"),
    ],
)
def test_another_recording_is_refused(
    tmp_path: Path, changes: dict[str, Any], env: EnvConfig, seed: int, message: str
) -> None:
    build_source(frames(tmp_path), TOY, seed=0)
    with pytest.raises(ValueError, match=message):
        build_source(frames(tmp_path, **changes), env, seed)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/thesis.tex").write_text("...")
    with pytest.raises(ValueError, match=r"frames holds no recording .*give source.path"):
        build_source(frames(tmp_path), TOY, seed=0)
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["thesis.tex"]


def test_an_interrupted_recording_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        run_help.at_step(90, interrupt, patch)
        with pytest.raises(KeyboardInterrupt):
            build_source(frames(tmp_path), TOY, seed=0)
    assert list(tmp_path.iterdir()) == []
    assert len(build_source(frames(tmp_path), TOY, seed=0).frames) == 3 * STEPS


def test_a_killed_recording_is_not_taken_for_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_help.at_step(90, lambda: os._exit(7), monkeypatch)
    assert run_help.in_child(lambda: len(build_source(frames(tmp_path), TOY, 0).frames)) == 7
    assert not (tmp_path / "frames").exists()


def abandoned(folder: Path, age: float = 3600) -> Path:
    (folder / "labels").mkdir(parents=True)
    (folder / "frames.npy").write_bytes(b"half")
    os.utime(folder, (time.time() - age, time.time() - age))
    return folder


def test_what_killed_recordings_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    stale = [abandoned(tmp_path / f".frames.abcdefg{i}") for i in range(2)]
    kept = [abandoned(tmp_path / name) for name in (".other.abcdefgh", ".frames.old", "frames.abcdefgh")]
    kept.append(abandoned(tmp_path / ".frames.new_made", age=0))
    (tmp_path / ".frames.my_thing").mkdir()
    (tmp_path / ".frames.my_thing/thesis.tex").touch()
    kept.append(abandoned(tmp_path / ".frames.my_thing/x").parent)
    os.utime(kept[-1], (0, 0))
    (tmp_path / ".frames.linked_1").symlink_to(kept[0])
    running = abandoned(tmp_path / ".frames.running1")
    lock = os.open(running, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    build_source(frames(tmp_path), TOY, seed=0)
    os.close(lock)
    assert not any(path.exists() for path in stale)
    left = {path.name for path in (*kept, running)} | {".frames.linked_1", "frames"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert (kept[0] / "frames.npy").is_file()


def test_a_full_disk_is_one_line_before_the_first_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        assert size > 3 * STEPS * 36 * 36
        raise OSError(errno.ENOSPC, "No space left on device")

    run_help.at_step(3, lambda: pytest.fail("played before there was room"), monkeypatch)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"No space left on device.*frames\.npy"):
        build_source(frames(tmp_path), TOY, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_may_record_the_same_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        run_help.at_step(90, lambda: patch.undo() or build_source(frames(tmp_path), TOY, 0), patch)
        late = build_source(frames(tmp_path), TOY, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]
    assert len(late.frames) == 3 * STEPS


def test_a_trained_agent_plays_with_some_random_actions(tmp_path: Path) -> None:
    config = run_help.small(tmp_path / "run", env=TOY, frame_stack=2)
    agent = run_help.exported_agent(config, tmp_path / "run")
    source = frames(tmp_path, 600, policy=str(tmp_path / "run"))
    episodes = build_source(source, TOY, seed=0)
    assert episodes.action is not None
    inside = np.setdiff1d(episodes.rows(), episodes.begin)  # the frame before is of the same game
    obs = np.concatenate([episodes.frames[inside - 1], episodes.frames[inside]], axis=1)
    same = episodes.action[inside] == agent.act(Observation(obs), explore=False)
    assert 0.9 < same.mean() < 1  # 1 - 0.05 * 2 / 3
    with pytest.raises(ValueError, match=r"observations \(2, 36, 36\), env gives \(2, 48, 48\)"):
        build_source(frames(tmp_path / "large", policy=source.policy), replace(TOY, size=48), seed=0)


# --- the others, and what they are for ---


def test_pretraining_on_every_source(tmp_path: Path) -> None:
    run = run_help.hard(tmp_path / "run", aux={})
    assert run_help.run(run) == 0
    for source, task in [
        (frames(tmp_path), "inverse_dynamics"),
        (ReplayRunConfig(str(tmp_path / "run")), "inverse_dynamics"),
        (ImagesConfig(str(image_folder(tmp_path / "images")), 32), "rotation"),
        (VideosConfig(str(video_folder(tmp_path / "videos")), 32), "arrow_of_time"),
        (MultiviewConfig(str(multiview_folder(tmp_path / "views")), 32), "arrow_of_time"),
        (IdxConfig(str(idx_folder(tmp_path / "idx"))), "rotation"),
        (BallsConfig(episodes=4, length=20), "arrow_of_time"),
        (TripletsConfig(grasps=8, path=str(tmp_path / "triplets")), "rotation"),
    ]:
        folder = tmp_path / f"pretrained-{type(source).__name__}"
        env = {"env": GraspingConfig(num_envs=2)} if isinstance(source, TripletsConfig) else {}
        assert script.pretrain(pretraining(source, folder, task, **env)) == 0
        assert (folder / "encoder.safetensors").is_file()
    assert {path.name.removeprefix("pretrained-") for path in tmp_path.glob("pretrained-*")} == {
        kind.__name__ for kind in SOURCES.values()
    }


def test_the_replay_of_a_run(tmp_path: Path) -> None:
    run = run_help.hard(tmp_path, aux={})
    assert run_help.run(run) == 0
    episodes = build_source(ReplayRunConfig(str(tmp_path)), TOY, seed=0)
    assert episodes.num_actions == 3
    assert 60 < len(episodes.frames) <= 90
    assert (episodes.end - episodes.begin).max() == 10  # nine steps, as the time limit says
    balls = (episodes.frames[:, 0, ::3, ::3] == BALL_GRAY).argmax(axis=1).max(axis=1)  # the ball's row
    for begin, end in zip(episodes.begin, episodes.end, strict=True):
        assert np.diff(balls[begin:end]).tolist() == [1] * (end - begin - 1)
    (tmp_path / "none").mkdir()
    write_config(run, tmp_path / "none/config.yaml")
    with pytest.raises(ValueError, match=r"none has no checkpoints: source.run must be the folder of a training"):
        build_source(ReplayRunConfig(str(tmp_path / "none")), TOY, seed=0)
    save(tmp_path / "none/checkpoints", 1, {"parts": {"encoder": {}}})  # a pretraining has no replay
    with pytest.raises(CheckpointError, match=r"step_000000001 does not fit this run: KeyError\('replay'\)"):
        build_source(ReplayRunConfig(str(tmp_path / "none")), TOY, seed=0)
    save(tmp_path / "none/checkpoints", 2, {"networks": {}, "variables": {}})  # of an agent of Stable-Baselines3
    with pytest.raises(ValueError, match="step_000000002 holds no replay"):
        build_source(ReplayRunConfig(str(tmp_path / "none")), TOY, seed=0)


def test_states_are_not_recorded_as_pixels(tmp_path: Path) -> None:
    source, env = FramesConfig(frames=20, path=str(tmp_path / "frames")), PointMassConfig(observe="state")
    with pytest.raises(ValueError, match="source=frames records pixels, but env=pointmass gives states"):
        build_source(source, env, seed=0)
    assert not (tmp_path / "frames").exists()


def test_a_task_that_the_source_cannot_feed_is_named(tmp_path: Path) -> None:
    source = IdxConfig(str(idx_folder(tmp_path / "idx")))
    with pytest.raises(ValueError, match="aux=inverse_dynamics reads action, next_obs, which this source does not"):
        script.pretrain(pretraining(source, tmp_path / "run", "inverse_dynamics"))


@pytest.mark.parametrize(
    ("line", "source", "env"),
    [
        ("source=frames/breakout", FramesConfig(), AtariConfig(game="breakout")),
        ("source=frames env=toy env.balls=2", FramesConfig(), ToyConfig(balls=2)),
        ("source=idx", IdxConfig(), AtariConfig()),
        ("source=balls source.size=64", BallsConfig(size=64), AtariConfig()),
        ("source=images source.folder=x", ImagesConfig("x"), AtariConfig()),
        ("source=replay source.run=y", ReplayRunConfig("y"), AtariConfig()),
    ],
)
def test_the_command_line_names_sources(
    line: str, source: SourceConfig, env: EnvConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = compose(f"{line} aux=rotation")
    assert [(config.source, config.env) for config in made] == [(source, env)]


def test_two_games_are_a_sweep_and_a_missing_folder_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = compose("-m source=frames/pong,frames/breakout aux=rotation")
    assert [config.env.game for config in made] == ["pong", "breakout"]
    assert compose("source=images aux=rotation") == []
    assert "source.folder=... is missing" in capsys.readouterr().err


def compose(line: str) -> list[PretrainConfig]:
    made: list[PretrainConfig] = []

    def task(composed: Composed) -> int:
        made.append(freeze(composed.config, PretrainConfig))
        return 0

    launch(task, "pretrain", line.split())
    return made


@pytest.mark.parametrize("wrong", [lambda: FramesConfig(0), lambda: ImagesConfig("x", size=0), lambda: BallsConfig(0)])
def test_bad_numbers_are_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        wrong()
