"""The denoising factor against a slow loop, on encoders that are perfect by construction, and on a real scene."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import run_help
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import probe as script
from analysis.denoising import COPIES, OTHERS, DenoisingTest, Scenes, raw_pixels, record_scenes
from aux_tasks import TaskConfig
from configs.schema import ProbeConfig
from configs.sources import FramesConfig
from encoders import EncoderConfig, build_encoder
from envs import DmcConfig, PusherConfig
from envs.rendering import load_suite
from experiment.probing.build import build_denoising

SIZE, COUNT, CLIPS = 8, 60, 40


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    """A bright column, whose place is the state, before noise; two frames each."""
    rng = np.random.default_rng(0)
    place = rng.integers(SIZE, size=COUNT)
    pictures = np.zeros((COUNT, 2, 3, SIZE, SIZE), np.uint8)
    empty = np.ones((COUNT, 2, SIZE, SIZE), np.bool_)
    pictures[np.arange(COUNT), ..., place] = 255
    empty[np.arange(COUNT), ..., place] = False
    # a background is one gray, which its quarters share
    clips = {split: np.broadcast_to(rng.integers(200, size=(CLIPS, 1, 1, 1, 1)), (CLIPS, 2, 3, SIZE, SIZE)) for split in
             ("train", "eval")}  # fmt: skip
    clips = {split: clip.astype(np.uint8) for split, clip in clips.items()}
    return Scenes(pictures, empty, place[:, None].astype(float), np.arange(COUNT) % COPIES, clips)


def scored(scenes: Scenes, gray: bool = False) -> DenoisingTest:
    return DenoisingTest(scenes, gray=gray, device=torch.device("cpu"))


def column(obs: Tensor) -> Tensor:
    """Where the bright column is, one-hot: an encoder that sees no background."""
    return (obs[:, -3:].float().mean((1, 2)) == 255).float()


def behind(obs: Tensor) -> Tensor:
    """The gray behind it: an encoder that sees nothing else."""
    return obs.flatten(1).median(1).values.float()[:, None]


def test_encoders_that_see_one_thing_alone(scenes: Scenes) -> None:
    robot, background = scored(scenes)(column), scored(scenes)(behind)
    assert robot["seen"] == robot["unseen"] == pytest.approx(1)
    assert robot["state_r2"] == pytest.approx(1, abs=1e-3)
    assert robot["background_r2"] < 0.2
    assert abs(background["seen"]) < 0.1  # another state before another background differs as much
    assert background["background_r2"] > 0.95
    assert background["state_r2"] < 0.2


def test_the_factor_against_a_loop(scenes: Scenes) -> None:
    test = scored(scenes)
    order, clips, count = test._anchors, scenes.clips["eval"], len(test._anchors)

    def pixels(anchor: int, clip: int) -> np.ndarray:
        frames = [
            np.where(scenes.empty[order[anchor], t], clips[clip % CLIPS, t], scenes.pictures[order[anchor], t])
            for t in range(2)
        ]
        return np.concatenate(frames).astype(float).ravel()

    same = [np.linalg.norm(pixels(i, i) - pixels(i, i + k)) for i in range(count) for k in range(1, OTHERS + 1)]
    other = [np.linalg.norm(pixels(i, i) - pixels(j, j)) for i in range(count) for j in range(count) if i != j]
    expected = (np.mean(other) - np.mean(same)) / (np.mean(other) + np.mean(same))
    assert test.factor(raw_pixels, "eval") == pytest.approx(expected, abs=1e-9)


def learned(scenes: Scenes, *, robot: bool) -> nn.Module:
    """An encoder that had to draw the robot without its background, or the background alone, before seen ones."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6 * SIZE * SIZE, 32), nn.ReLU(), nn.Linear(32, 8))
    network = nn.Sequential(encoder, nn.Linear(8, SIZE * SIZE))
    optimizer, rng = torch.optim.Adam(network.parameters(), lr=3e-3), np.random.default_rng(0)
    for _ in range(400):
        moment, clip = rng.integers(COUNT, size=64), rng.integers(CLIPS, size=64)
        obs = torch.from_numpy(scenes.before("train", moment, clip)).float() / 255
        wanted = scenes.pictures[moment, -1, 0] if robot else scenes.clips["train"][clip, -1, 0]
        loss = F.mse_loss(network(obs), torch.from_numpy(wanted).flatten(1).float() / 255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder


def test_an_encoder_that_learned_to_remove_the_background_is_told_from_one_that_learned_it(scenes: Scenes) -> None:
    def of(encoder: nn.Module) -> dict[str, float]:
        return scored(scenes)(lambda obs: encoder(obs.float() / 255))

    good, bad, pixels = of(learned(scenes, robot=True)), of(learned(scenes, robot=False)), scored(scenes)(raw_pixels)
    assert good["unseen"] > 0.6 > 0.3 > max(bad["unseen"], pixels["unseen"])
    assert good["state_r2"] > bad["state_r2"] + 0.1
    assert good["background_r2"] < bad["background_r2"] - 0.1


def test_without_a_background_nothing_is_said_of_it(scenes: Scenes) -> None:
    black = {split: np.zeros_like(clip) for split, clip in scenes.clips.items()}
    assert scored(replace(scenes, clips=black))(column).keys() == {"seen", "unseen", "state_r2"}


def test_agents_that_see_no_pixels_are_not_tested() -> None:
    states = build_encoder(EncoderConfig("state"), (6, 1, 1))
    env = PusherConfig(background="gas", observe="state")
    assert env.columns == ()
    assert build_denoising(env, states, 1) is None
    assert build_denoising(PusherConfig(background="gas"), states, 1) is None  # features of a goal space


def test_gray_observations_and_a_collapsed_encoder(scenes: Scenes) -> None:
    shapes = []

    def constant(obs: Tensor) -> Tensor:
        shapes.append(tuple(obs.shape[1:]))
        return torch.ones(len(obs), 3)

    scores = scored(scenes, gray=True)(constant)
    assert set(shapes) == {(2, SIZE, SIZE)}
    assert scores["seen"] == scores["unseen"] == 0
    assert max(scores["state_r2"], scores["background_r2"]) <= 0


@pytest.mark.parametrize(
    "env",
    [DmcConfig(size=32, action_repeat=100, background="gas"), PusherConfig(size=32, time_limit=7, background="noise")],
)
def test_a_recorded_foreground_with_its_background_is_the_frame(env: DmcConfig | PusherConfig) -> None:
    load_suite()
    vector = replace(env, num_envs=2).build()
    frame = vector.reset(0)
    for _ in range(3):
        pictures, empty = vector.foreground()
        assert 0.3 < empty.mean() < 1
        same = (frame == pictures).all(1)
        assert same[~empty].all()
        frame = vector.step(np.ones((2, *vector.action_space.shape), np.float32)).frame
    vector.close()


def test_stacks_are_of_one_episode_and_of_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    load_suite()
    monkeypatch.setattr("analysis.denoising.STEPS", 9)
    monkeypatch.setattr("analysis.denoising.CLIPS", 3)
    scenes = record_scenes(PusherConfig(size=16, time_limit=4, background="noise"), frame_stack=3)
    again = record_scenes(PusherConfig(size=16, time_limit=4, background="noise"), frame_stack=3)
    assert np.array_equal(scenes.pictures, again.pictures)
    assert scenes.clips["train"].shape == (3, 3, 3, 16, 16)
    assert not np.array_equal(scenes.clips["train"], scenes.clips["eval"])
    # moments 0 to 4 are of the first episode, 5 to 8 of the second: windows that begin at 0, 1, 2, 5 and 6
    assert len(scenes.pictures) == 5 * COPIES
    assert (scenes.copy == np.tile(np.arange(COPIES), 5)).all()
    moved = np.abs(scenes.pictures[:, 0].astype(int) - scenes.pictures[:, 2]).mean((1, 2, 3))
    assert 0 < moved.max() < 60  # a pointer moves; another copy's table would look alike but for puck and pointer


def test_a_training_logs_it_and_a_probe_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_suite()
    monkeypatch.chdir(tmp_path)
    for name, value in {"COPIES": 4, "STEPS": 8, "CLIPS": 12}.items():
        monkeypatch.setattr(f"analysis.denoising.{name}", value)
    run_dir, env = tmp_path / "runs" / "r", PusherConfig(size=48, time_limit=7, background="gas", num_envs=3)
    encoder = EncoderConfig(name="control_fast", feature_dim=6)
    aux = {"deepmdp": TaskConfig(encoder="separate", options={"hidden": 8})}
    assert run_help.run(run_help.continuous(run_dir, env=env, encoder=encoder, aux=aux)) == 0
    logged = [row for row in run_help.rows(run_dir) if "repr/denoising/unseen" in row]
    assert len(logged) == 2
    assert all(-1 <= row[f"repr/denoising/{name}"] <= 1 for row in logged for name in ("seen", "unseen"))
    words = {"seeds": 1, "train_labels": 40, "test_labels": 20, "threads": 1, "device": "cpu"}
    config = ProbeConfig(str(run_dir), {}, FramesConfig(frames=120), **words)
    assert script.probe(config, []) == 0
    assert script.probe(replace(config, checkpoint=f"{run_dir}/encoder-deepmdp.safetensors"), []) == 0
    own = json.loads((run_dir / "probe-linear-frames-deepmdp.json").read_text())["denoising"]
    assert own["trained"]["unseen"] == pytest.approx(logged[-1]["aux/deepmdp/denoising/unseen"], abs=1e-6)
    report = json.loads((run_dir / "probe-linear-frames.json").read_text())
    assert own["initial"] == report["denoising"]["initial"]
    assert list(report["denoising"]) == ["pixels", "initial", "trained"]
    assert report["denoising"]["trained"]["unseen"] == pytest.approx(logged[-1]["repr/denoising/unseen"], abs=1e-6)
