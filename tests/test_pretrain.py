"""The pretraining: it learns, continues bit for bit, and hands its encoder to an agent."""

import json
import os
import runpy
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from run_help import COPIES, small
from safetensors.torch import load_file
from scipy.spatial.distance import pdist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

import pretrain as script
from analysis.attribution import smoothgrad
from analysis.picture import GAP
from aux_tasks import TaskConfig
from aux_tasks.transform import TransformTask
from configs.schema import PretrainConfig
from configs.sources import BallsConfig, FramesConfig
from datasets import Episodes
from encoders import EncoderConfig
from envs import ToyConfig
from experiment.pretraining import run as pretraining
from experiment.pretraining.run import build_pretraining, load_pretraining
from experiment.training.build import build
from harness.checkpoint import CheckpointError, load_latest, save
from harness.process import tune_process

TOY = ToyConfig(num_envs=2, balls=2)  # 24 frames a game
ENCODER = EncoderConfig("der", standardize=True)


def config(tmp_path: Path, name: str, *tasks: str, **changes: Any) -> PretrainConfig:
    """30 updates on 200 frames of Catch, in stacks of four."""
    settings: dict[str, Any] = {"steps": 30, "batch_size": 8, "log_every": 10, "diagnose_every": 15, "threads": 1}
    settings |= {"checkpoint_every": 10, "frame_stack": 4, "device": "cpu", "encoder": ENCODER, "env": TOY}
    settings |= {"source": FramesConfig(200, path=str(tmp_path / "frames")), "aux": {t: TaskConfig() for t in tasks}}
    return PretrainConfig(**{**settings, **changes}, run_dir=str(tmp_path / name))


def rows(folder: Path) -> list[dict[str, float]]:
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "clock"} for row in logged]


class KillError(BaseException):  # nothing is saved, as by SIGKILL
    """Ends a run at once."""


@pytest.mark.parametrize("tasks", [("rotation", "bigan"), ("moco",), ("exemplar", "arrow_of_time")], ids="+".join)
def test_a_killed_pretraining_ends_as_if_it_had_not_been(
    tasks: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(parts: Any, batch: Any, step: int) -> Any:
        if step == 17:
            raise KillError
        return original(parts, batch, step)

    original = script.update
    assert script.pretrain(config(tmp_path, "whole", *tasks)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(script, "update", die)
        with pytest.raises(KillError):
            script.pretrain(config(tmp_path, "killed", *tasks))
    assert script.pretrain(config(tmp_path, "killed", *tasks)) == 0
    whole, killed = (tmp_path / name for name in ("whole", "killed"))
    assert rows(whole) == rows(killed)
    assert (whole / "encoder.safetensors").read_bytes() == (killed / "encoder.safetensors").read_bytes()
    assert {f"test/{task}/loss" for task in tasks} <= rows(whole)[-1].keys()


def test_sigusr1_saves_and_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asking(parts: Any, batch: Any, step: int) -> Any:
        if step == 16:
            os.kill(os.getpid(), signal.SIGUSR1)
        return update(parts, batch, step)

    saved, update = [], script.update
    assert script.pretrain(config(tmp_path, "quiet", "rotation")) == 0
    monkeypatch.setattr(script, "update", asking)
    monkeypatch.setattr(pretraining, "save", lambda folder, at, state: saved.append(at) or save(folder, at, state))
    assert script.pretrain(config(tmp_path, "asked", "rotation")) == 0
    assert saved == [10, 17, 20, 30]
    quiet, asked = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("quiet", "asked"))
    assert quiet == asked


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    assert script.pretrain(config(tmp_path, "run", "rotation", steps=5)) == 0
    checkpoints = tmp_path / "run" / "checkpoints"
    state = load_latest(checkpoints).state
    state["parts"]["suite"].popitem()
    path = save(checkpoints, 6, state)
    for task in (
        lambda: script.pretrain(config(tmp_path, "run", "rotation")),
        lambda: load_pretraining(path.parents[1]),
    ):
        with pytest.raises(CheckpointError, match=f"^{path} does not fit this run: of another network: tasks") as told:
            task()
        assert "\n" not in str(told.value)


def test_looking_at_the_test_episodes_changes_no_bit(tmp_path: Path) -> None:
    for often in (5, 30):
        assert script.pretrain(config(tmp_path, f"{often}", "rotation", diagnose_every=often)) == 0
    first, second = (load_file(tmp_path / f"{often}" / "encoder.safetensors") for often in (5, 30))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_agent_starts_from_the_encoder_and_its_agent_may_keep_it(tmp_path: Path) -> None:
    tune_process(1)
    assert script.pretrain(config(tmp_path, "run", "rotation", steps=5)) == 0
    begun = replace(ENCODER, init=str(tmp_path / "run"))
    parts = build(small(tmp_path / "agent", env=ToyConfig(num_envs=COPIES), encoder=begun))
    weights = load_file(tmp_path / "run" / "encoder.safetensors")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in parts.agent.encoder.state_dict().items())
    assert float(weights["pixel_moments"][0]) > 0
    parts.env.close()
    others = {"is of another network": {"name": "nature"}, "encoder.standardize is True there": {"standardize": False}}
    for message, change in others.items():
        with pytest.raises(ValueError, match=message):
            build(small(tmp_path / "agent", encoder=replace(begun, **change)))


def test_a_pretraining_goes_on_without_the_file_that_it_began_with(tmp_path: Path) -> None:
    assert script.pretrain(config(tmp_path, "first", "rotation", steps=5)) == 0
    init = tmp_path / "first" / "encoder.safetensors"
    for steps in (5, 8):
        begun = config(tmp_path, "run", "rotation", steps=steps, encoder=replace(ENCODER, init=str(init)))
        assert script.pretrain(begun) == 0
        init.unlink(missing_ok=True)
    assert load_latest(tmp_path / "run" / "checkpoints").step == 8
    load_pretraining(tmp_path / "run")


def test_tasks_that_ask_for_a_class_leave_maps_of_what_they_look_at(tmp_path: Path) -> None:
    begun = config(tmp_path, "run", "rotation", "moco", steps=5)
    assert script.pretrain(begun) == 0
    assert script.pretrain(config(tmp_path, "moco", "moco", steps=5)) == 0
    assert not (tmp_path / "moco" / "attribution").exists()
    parts = build_pretraining(begun)
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint
    parts.load_state_dict(checkpoint.state["parts"])
    rotation = dict(parts.suite)["rotation"]
    assert isinstance(rotation, TransformTask)
    files = sorted((tmp_path / "run" / "attribution").glob("moment_*.png"))
    assert len(files) == 8
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert {f"attribution/{file.stem}" for file in files} <= set(events.Tags()["images"])
    held_out = parts.test.observe(parts.test.episodes.rows())
    for file in files:
        picture = np.asarray(Image.open(file))
        assert picture.shape == (3 * (252 + 18) + 2 * GAP, 4 * 252 + 3 * GAP, 3)
        cells = np.pad(picture[..., 0], (0, GAP)).reshape(3, 252 + 18 + GAP, 4, 252 + GAP)
        frames, shown, _ = cells[:, 18:-GAP, :, :-GAP][:, 3::7, :, 3::7].transpose(0, 2, 1, 3)
        (own,) = (held_out == torch.tensor(frames)).all((1, 2, 3)).nonzero()[0]
        obs = held_out[own : own + 1]
        heat = smoothgrad(lambda seen: rotation.head(parts.encoder(seen)), obs, frames=4, samples=64)[0]
        np.testing.assert_allclose(shown, (1 - heat) * 0.6 * frames + heat * 255, atol=2)


def test_the_projector_gets_held_out_features_with_their_pictures_and_labels(tmp_path: Path) -> None:
    begun = config(tmp_path, "run", "rotation", steps=5)
    assert script.pretrain(begun) == 0
    settings = ProjectorConfig()
    text_format.Parse((tmp_path / "run" / "projector_config.pbtxt").read_text(), settings)
    (info,) = settings.embeddings
    points = np.loadtxt(tmp_path / "run" / info.tensor_path)
    table = [line.split("\t") for line in (tmp_path / "run" / info.metadata_path).read_text().splitlines()]
    sprites = np.asarray(Image.open(tmp_path / "run" / info.sprite.image_path))
    parts = build_pretraining(begun)
    parts.encoder.load_state_dict(load_file(tmp_path / "run" / "encoder.safetensors"))
    source = parts.test.episodes
    header, *values = table
    assert header == [*source.labels, "episode", "frame"]
    assert len(values) == len(points) == len(source.rows())
    rows = np.array([source.begin[int(episode)] + int(frame) for *_, episode, frame in values])
    assert sorted(rows) == sorted(source.rows())
    for column, label in enumerate(source.labels.values()):
        np.testing.assert_allclose([float(value[column]) for value in values], label[rows], rtol=1e-5)
    with torch.no_grad():
        features = parts.encoder(parts.test.observe(rows)).numpy()
    kept = np.square(points).sum() / np.square(features - features.mean(0)).sum()
    np.testing.assert_allclose(pdist(points), pdist(features), rtol=0.1, atol=0.02 * pdist(features).max())
    assert 0.98 < kept <= 1.0001
    height, width = source.frames.shape[2:]
    across = sprites.shape[1] // width
    for i in range(len(rows)):
        y, x = i // across * height, i % across * width
        thumbnail = sprites[y : y + height, x : x + width].astype(int)
        assert np.abs(thumbnail - source.frames[rows[i]].transpose(1, 2, 0)).max() <= 1


@pytest.mark.parametrize(
    ("task", "message"),
    [("colorization", "reads rgb, which this source does not provide"), ("arrow_of_time", "clips of .* needed")],
)
def test_a_source_that_is_too_poor_is_refused(task: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        script.pretrain(config(tmp_path, "run", task, env=ToyConfig(num_envs=2)))  # 12 frames a game


def test_held_out_episodes_too_short_for_a_clip_are_found_before_the_first_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.zeros((50, 1, 84, 84), np.uint8)
    short = Episodes(frames, np.array([0, 45]), np.array([45, 50]), test=np.array([False, True]))
    monkeypatch.setattr("experiment.pretraining.run.build_source", lambda *_: short)
    with pytest.raises(ValueError, match="episodes held out: clips of 17 frames are needed"):
        build_pretraining(config(tmp_path, "run", "shuffle_learn"))


def test_a_thing_is_followed_by_what_the_newest_checkpoint_learned(tmp_path: Path) -> None:
    balls = {"source": BallsConfig(episodes=4, length=12), "grayscale": False, "encoder": EncoderConfig("control_fast")}
    begun = config(tmp_path, "run", "video_colorization", **{**balls, "frame_stack": 1, "steps": 3})
    assert script.pretrain(begun) == 0
    encoder = load_file(tmp_path / "run" / "encoder.safetensors")
    for name, tensor in load_pretraining(tmp_path / "run").encoder.state_dict().items():
        assert torch.equal(tensor, encoder[name])
    follow = runpy.run_path("scripts/track.py")["main"]
    follow([f"run={tmp_path / 'run'}", "box=4,4,9,8", "frame=2", f"out={tmp_path / 'tracked.mp4'}"])
    frames, _ = imageio_ffmpeg.count_frames_and_secs(tmp_path / "tracked.mp4")
    assert frames == 10
    for box in (
        "0,0,33,5",
        "-1,0,3,3",
        "0,0,0,4",
        "100,100,5,5",
        "3,3",
        "a,b,c,d",
        "1,2,3,4,5",
        "1.5,2,3,4",
        "",
        "²,1,1,1",
    ):
        with pytest.raises(ValueError, match=rf"box={box}: .* 32 pixels high and 32 wide"):
            follow([f"run={tmp_path / 'run'}", f"box={box}"])
    for word in ("frame=12", "frame=-1", "frame=x", "length=0", "length=1e2"):
        with pytest.raises(ValueError, match=f"{word}: must be a whole number from "):
            follow([f"run={tmp_path / 'run'}", "box=4,4,9,8", word])
