"""A goal space from its pretraining to the agent that uses it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.config_store import ConfigStore
from PIL import Image
from run_help import final, run, small
from torch.nn.functional import adaptive_avg_pool2d

import evaluate
import pretrain
import train as script
from agents import SACConfig
from aux_tasks import TASKS, AuxTask, TaskConfig
from aux_tasks.base import AuxOutput
from aux_tasks.goals.base import GoalTask
from configs.schema import Config, EvaluateConfig, GoalConfig, PretrainConfig
from configs.sources import FramesConfig
from encoders import EncoderConfig
from envs import PointMassConfig, PusherConfig, Rollout
from experiment.command_line.composition import register
from experiment.folders.weights import read_weights, write_weights
from experiment.goals import check as goal_space_check
from experiment.goals.env import env_of_run
from experiment.goals.space import GOAL_SPACE_FILE, TaskSpace, space_file
from experiment.training.build import build
from harness.provenance import read_json
from replay import ReplayConfig
from replay.config import RelabelConfig

SIZE, G = 24, 12


class Pooled(GoalTask):
    """Averaged pixels, times a parameter that learns."""

    def __init__(self, setting, *, scale: float = 2.0, imagines: bool = True):
        super().__init__(setting)
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.goal_dim, self.imagines = G, imagines

    def loss(self, batch, features, encoder):
        return AuxOutput((encoder(batch.obs).sum(1) * 1e-3 + (self.scale - 1)).square())

    def embed(self, obs, encoder, context=None):
        return adaptive_avg_pool2d(obs.float() / 255, 2).flatten(1) * self.scale

    def decode(self, goals):
        return torch.zeros(len(goals), 3, SIZE, SIZE, dtype=torch.uint8)

    def imagine(self, achieved):
        if not self.imagines:
            return super().imagine(achieved)
        return torch.rand(achieved.shape, generator=self.generator)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    register()
    store = ConfigStore.instance()
    monkeypatch.setitem(store.repo, "aux", {**store.repo["aux"]})  # other tests list the choices
    monkeypatch.setitem(TASKS, "pooled", Pooled)
    monkeypatch.setattr(goal_space_check, "COPIES", 6)


def pretrained(folder: Path, monkeypatch, **options) -> Path:
    """The folder of a pretraining with a goal space."""
    monkeypatch.chdir(folder)
    config = PretrainConfig(
        source=FramesConfig(frames=80),
        env=PusherConfig(size=SIZE, time_limit=8),
        encoder=EncoderConfig(name="small"),
        aux={"pooled": TaskConfig(options=options)},
        grayscale=False,
        steps=3,
        batch_size=8,
        device="cpu",
        threads=1,
        run_dir=str(folder / "space"),
    )
    assert pretrain.pretrain(config) == 0
    return folder / "space"


def trained_on(folder: Path, **changes) -> Config:
    """60 steps of SAC in that goal space."""
    return small(
        folder / "run",
        env=PusherConfig(num_envs=3, size=SIZE, time_limit=8),
        agent=SACConfig(hidden=8),
        encoder=EncoderConfig(name="state", layer_norm=False),
        replay=ReplayConfig(capacity=90, n_step=1, relabel=RelabelConfig(rollout=0.2, future=0.3, imagined=0.5)),
        goal=GoalConfig(space=str(folder / "space")),
        frame_stack=1,
        clip_reward=False,
        **changes,
    )


def test_a_file_gives_the_space_back(tmp_path, monkeypatch):
    folder = pretrained(tmp_path, monkeypatch)
    space = TaskSpace.load(space_file(str(folder)), torch.device("cpu"))
    frames = np.random.default_rng(0).integers(256, size=(5, 3, SIZE, SIZE), dtype=np.uint8)
    scale = float(read_weights(folder / GOAL_SPACE_FILE)[0]["task.scale"])
    assert scale != 2
    pooled = adaptive_avg_pool2d(torch.from_numpy(frames).float() / 255, 2).flatten(1).numpy() * scale
    np.testing.assert_allclose(space.embed(frames, frames), pooled, rtol=1e-6)
    np.testing.assert_allclose(space.reward(pooled, pooled + 1), -np.full(5, G**0.5), rtol=1e-6)
    one, two, other = (space.imagine(pooled, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()
    with pytest.raises(ValueError, match=r"of pictures \(3, 24, 24\), these are \(3, 20, 20\)"):
        space.embed(frames[:, :, :20, :20], frames)


@pytest.mark.parametrize(
    ("observe", "source"), [("latent", "imagined"), ("latent", "env"), ("features", "env"), ("pixels", "imagined")]
)
def test_an_environment_seen_through_a_space(observe, source, tmp_path, monkeypatch):
    pretrained(tmp_path, monkeypatch)
    goal = GoalConfig(space=str(tmp_path / "space"), observe=observe, source=source)
    config = replace(trained_on(tmp_path), goal=goal)
    env, base = env_of_run(config, tmp_path).build(), config.env.build()
    rollout, beside = Rollout(env, 1, "zeros"), Rollout(base, 1, "zeros")
    space = TaskSpace.load(space_file(goal.space), torch.device("cpu"))
    rollout.reset(3)
    beside.reset(3)
    rng, goals, ended = np.random.default_rng(1), [], 0
    for _ in range(20):
        achieved = space.embed(beside.frame, beside.frame)
        np.testing.assert_allclose(rollout.goals.achieved, achieved, atol=1e-6)
        if observe == "pixels":
            np.testing.assert_array_equal(rollout.frame, beside.frame)
        elif observe == "features":
            seen = space.encoder(torch.from_numpy(beside.frame)).detach()
            np.testing.assert_allclose(rollout.frame[:, :, 0, 0], seen, atol=1e-5)
        else:
            np.testing.assert_allclose(rollout.frame[:, :, 0, 0], achieved, atol=1e-6)
        if source == "env":
            np.testing.assert_allclose(
                rollout.goals.desired, space.embed(base.goal_frame(), base.goal_frame()), atol=1e-6
            )
        goals.append(rollout.goals.desired)
        action = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        row, there = rollout.step(lambda _, a=action: a), beside.step(lambda _, a=action: a)
        now = space.embed(beside.frame, beside.frame)
        expected = np.where(row.valid, space.reward(now, rollout.goals.desired), 0)
        np.testing.assert_allclose(row.reward, expected, atol=1e-5)
        assert [e.length for e in rollout.episodes] == [e.length for e in beside.episodes]
        ended += len(rollout.episodes)
        for mine, theirs in zip(rollout.episodes, beside.episodes, strict=True):
            told = (None, None) if source == "imagined" else (theirs.success, theirs.goal_distance)
            assert (mine.success, mine.goal_distance) == told
        assert there.valid.tolist() == row.valid.tolist()
    assert ended
    assert len({goal.tobytes() for step in goals for goal in step}) == 9  # one an episode: three copies, three episodes
    env.close()
    base.close()


def test_a_run_keeps_its_space_and_can_be_evaluated_without_the_pretraining(tmp_path, monkeypatch):
    folder = pretrained(tmp_path, monkeypatch)
    config = trained_on(tmp_path, eval_episodes=4)
    assert run(config) == 0
    assert list((tmp_path / "run" / "pictures").glob("goals-*.png"))
    whole = final(tmp_path / "run")
    (folder / GOAL_SPACE_FILE).rename(tmp_path / "elsewhere")
    report = read_json(tmp_path / "run" / "report.json")
    assert {"success_rate", "goal_distance"} <= report["summary"].keys()
    assert len(report["goal_distances"]) == 4
    told = EvaluateConfig(checkpoint=str(tmp_path / "run"), episodes=4, json=str(tmp_path / "again.json"))
    assert evaluate.run(told, []) == 0
    assert read_json(tmp_path / "again.json")["returns"] == report["returns"]
    assert run(replace(config, steps=120)) == 0  # complete: nothing to do
    assert final(tmp_path / "run") == whole
    picture = tmp_path / "goal.png"
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(picture)
    assert evaluate.run(replace(told, goal=str(picture)), []) == 0
    assert "success_rate" not in read_json(tmp_path / "again.json")["summary"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goal": GoalConfig(space="nowhere")}, r"goal.space=nowhere: nowhere does not exist; pretrain.py writes it"),
        ({"goal": GoalConfig(space="pixels")}, r"cannot imagine goals: give goal.source=env"),
        (
            {"goal": GoalConfig(), "encoder": EncoderConfig(name="small")},
            r"goals cannot be imagined here: replay.relabel.imagined needs goal.space",
        ),
        ({"env": PusherConfig(size=SIZE, observe="state")}, r"gives states: env.observe=pixels"),
        ({"env": PusherConfig(size=30)}, r"of pictures \(3, 24, 24\), these are \(3, 30, 30\)"),
        ({"env": PointMassConfig()}, r"of pictures \(3, 24, 24\)"),
        ({"encoder": EncoderConfig()}, r"encoder=der reads pixels, but these are states: encoder=state"),
        ({"aux": {"rotation": TaskConfig()}}, "need pixels, but this environment gives states"),
        ({"agent": SACConfig(random_shift=4)}, "need pixels, but this environment gives states"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(changes, message, tmp_path, monkeypatch):
    pretrained(tmp_path, monkeypatch)
    config = replace(trained_on(tmp_path), **changes)
    with pytest.raises(ValueError, match=message):
        build(config).rollout.reset(0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("blind", [False, True])
def test_a_space_that_does_not_show_the_object_is_warned_of(blind, tmp_path, monkeypatch, caplog):
    pretrained(tmp_path, monkeypatch)
    monkeypatch.setattr(goal_space_check, "COPIES", 40)
    if blind:
        monkeypatch.setattr(Pooled, "embed", lambda self, obs, *_: torch.rand(len(obs), G))
    else:  # finer, and red alone: the puck
        monkeypatch.setattr(
            Pooled, "embed", lambda self, obs, *_: adaptive_avg_pool2d(obs[:, :1].float(), 12).flatten(1)
        )
    scores = goal_space_check.check_goal_space(
        PusherConfig(size=SIZE), TaskSpace.load(tmp_path / "space" / GOAL_SPACE_FILE, torch.device("cpu")), 0
    )
    assert (min(scores) < 0.8) == blind
    assert ("an agent cannot tell where the object is" in caplog.text) == blind
    if blind:
        assert "hardly depends on the distance" in caplog.text


def test_a_reward_that_follows_the_distance_is_not_warned_of(tmp_path, monkeypatch, caplog):
    """The middle of the red pixels is the puck's place."""
    pretrained(tmp_path, monkeypatch)
    monkeypatch.setattr(goal_space_check, "COPIES", 40)

    def middle(self, obs, *_):
        red = (obs[:, 0].float() - obs[:, 1].float()).clamp_min(0)
        share, places = red / red.sum((1, 2), keepdim=True), torch.linspace(-1, 1, SIZE)
        return torch.stack([(share.sum(1) * places).sum(1), -(share.sum(2) * places).sum(1)], 1)

    monkeypatch.setattr(Pooled, "embed", middle)
    goal_space_check.check_goal_space(
        PusherConfig(size=SIZE), TaskSpace.load(tmp_path / "space" / GOAL_SPACE_FILE, torch.device("cpu")), 0
    )
    assert "WARNING" not in caplog.text


def test_what_a_reward_does_not_compare_is_not_read(tmp_path, monkeypatch, caplog):
    """The puck's place beside a latent without it, as CC-RIG's code of the first picture can have it."""
    pretrained(tmp_path, monkeypatch)
    monkeypatch.setattr(goal_space_check, "COPIES", 40)
    monkeypatch.setattr(Pooled, "embed", lambda self, obs, *_: adaptive_avg_pool2d(obs[:, :1].float(), 12).flatten(1))
    monkeypatch.setattr(Pooled, "compared", lambda self, goals: torch.rand(len(goals), 3))
    space = TaskSpace.load(tmp_path / "space" / GOAL_SPACE_FILE, torch.device("cpu"))
    assert max(goal_space_check.check_goal_space(PusherConfig(size=SIZE), space, 0)) < 0.8
    assert "an agent cannot tell where the object is" in caplog.text


def test_a_space_that_cannot_imagine_says_so(tmp_path, monkeypatch):
    pretrained(tmp_path, monkeypatch, imagines=False)
    with pytest.raises(ValueError, match=r"Pooled cannot imagine goals: goal.source=env"):
        build(trained_on(tmp_path))


@pytest.mark.parametrize("damage", ["task", "options", "encoder", "weights"])
def test_a_damaged_file_names_itself(damage, tmp_path, monkeypatch):
    folder = pretrained(tmp_path, monkeypatch)
    weights, header = read_weights(folder / GOAL_SPACE_FILE)
    match damage:
        case "task":
            header["task"] = "rotation"
        case "options":
            header["options"] = {"nothing": 1}
        case "encoder":
            header["encoder"] = {"name": "none"}
        case "weights":
            weights.pop("task.scale")
    write_weights(weights, folder / GOAL_SPACE_FILE, {key: value for key, value in header.items() if key != "sha256"})
    with pytest.raises(ValueError, match=GOAL_SPACE_FILE):
        TaskSpace.load(folder / GOAL_SPACE_FILE, torch.device("cpu"))


def test_another_space_does_not_continue_a_run(tmp_path, monkeypatch):
    pretrained(tmp_path, monkeypatch)
    assert run(trained_on(tmp_path, steps=48)) == 0
    file = tmp_path / "space" / GOAL_SPACE_FILE
    weights, header = read_weights(file)
    weights["task.scale"] += 1
    write_weights(weights, file, {key: value for key, value in header.items() if key != "sha256"})
    with pytest.raises(ValueError, match="was trained with another goal space"):
        run(trained_on(tmp_path))


def test_goals_are_imagined_where_the_environment_has_none(tmp_path, monkeypatch):
    pretrained(tmp_path, monkeypatch)
    world = PointMassConfig(num_envs=3, size=SIZE, grayscale=False, time_limit=8)
    assert run(replace(trained_on(tmp_path, eval_episodes=3), env=world)) == 0
    report = read_json(tmp_path / "run" / "report.json")
    assert "success_rate" not in report["summary"]
    config = replace(trained_on(tmp_path), env=world, goal=GoalConfig(space=str(tmp_path / "space"), source="env"))
    with pytest.raises(ValueError, match="no pictures of its goals"):
        build(replace(config, replay=ReplayConfig(n_step=1))).rollout.reset(0)


def test_auxiliary_tasks_learn_beside_a_goal_space(tmp_path, monkeypatch):
    pretrained(tmp_path, monkeypatch)
    config = replace(
        trained_on(tmp_path),
        goal=GoalConfig(space=str(tmp_path / "space"), observe="pixels"),
        encoder=EncoderConfig(name="small"),
        aux={"pooled": TaskConfig(), "rotation": TaskConfig()},
        steps=48,
    )
    assert run(config) == 0
    assert issubclass(Pooled, AuxTask)


def own_space(folder: Path, **changes) -> Config:
    """60 steps of SAC from pixels in the goal space of its own auxiliary task."""
    config = small(
        folder / "run",
        env=PusherConfig(num_envs=3, size=SIZE, time_limit=8),
        agent=SACConfig(hidden=8),
        encoder=EncoderConfig(name="small"),
        replay=ReplayConfig(capacity=90, n_step=2, relabel=RelabelConfig(rollout=0.2, future=0.3, imagined=0.5)),
        aux={"pooled": TaskConfig()},
        goal=GoalConfig(space="aux", observe="pixels"),
        frame_stack=1,
        clip_reward=False,
    )
    return replace(config, **changes)


def test_goals_of_a_space_that_learns_are_never_stale(tmp_path):
    config = own_space(tmp_path, replay=ReplayConfig(n_step=1, relabel=RelabelConfig(rollout=0, future=1)))
    parts = build(config)
    parts.rollout.reset(0)
    for _ in range(30):
        parts.replay.add(*parts.rollout.collect())
    task = parts.suite.tasks["pooled"]
    with torch.no_grad():
        task.scale.fill_(7.0)  # learned since
    batch = parts.replay.sample(32, frozenset({"next_obs"}))
    reached = task.embed(batch.next_obs, parts.agent.encoder)
    torch.testing.assert_close(batch.reward, task.reward(reached, batch.goal).detach())
    stored = [parts.replay._storage.stack(np.full(3, row), np.arange(3), 1) for row in range(30)]
    seen = task.embed(torch.cat(stored), parts.agent.encoder).detach()
    nearest = (batch.goal[:, None] - seen).norm(dim=2).amin(1)
    assert nearest.max() < 1e-5, "each goal is the embedding of a stored frame, as the task sees it now"


def test_goals_are_embedded_by_the_encoder_that_their_task_trains(tmp_path):
    parts = build(own_space(tmp_path, aux={"pooled": TaskConfig(encoder="separate")}))
    parts.rollout.reset(0)
    own, pixels = parts.suite.encoder_of("pooled", parts.agent.encoder), parts.rollout.observation.pixels
    with torch.no_grad():
        for weight in own.parameters():
            weight.mul_(2)  # learned since
        expected = parts.suite.tasks["pooled"].embed(torch.from_numpy(pixels), own)
    np.testing.assert_allclose(parts.env.goals().achieved, expected.numpy(), rtol=1e-4)


def test_a_run_in_its_own_space_continues_where_it_was_killed(tmp_path, monkeypatch):
    assert run(own_space(tmp_path / "whole", eval_episodes=2, eval_every=48, eval_every_episodes=2)) == 0
    whole = final(tmp_path / "whole" / "run")
    original = script.save_training

    def leave(training):
        original(training)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "save_training", leave)
    with pytest.raises(KeyboardInterrupt):
        run(own_space(tmp_path / "parts", eval_episodes=2))
    monkeypatch.setattr(script, "save_training", original)
    assert run(own_space(tmp_path / "parts", eval_episodes=2)) == 0
    assert final(tmp_path / "parts" / "run")[0] == whole[0]
    assert (
        read_weights(tmp_path / "parts" / "run" / GOAL_SPACE_FILE)[1]
        == read_weights(tmp_path / "whole" / "run" / GOAL_SPACE_FILE)[1]
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aux": {}}, "goal.space=aux needs one auxiliary task that defines goals"),
        ({"aux": {"rotation": TaskConfig()}}, "goal.space=aux needs one auxiliary task that defines goals"),
        ({"goal": GoalConfig(space="aux", observe="pixels", source="env")}, "replay.relabel.rollout=0"),
    ],
)
def test_a_space_of_its_own_that_does_not_fit(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        build(own_space(tmp_path, **changes))
