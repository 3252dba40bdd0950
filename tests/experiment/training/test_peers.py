"""Agents of Stable-Baselines3 in runs of ours."""

import json
import os
import shutil
import signal
from functools import cache

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import compare
import evaluate
import train as script
from agents.peers import PEERS, SB3DQNConfig
from analysis.comparison.groups import group_runs
from analysis.comparison.runs import find_runs, read_runs
from envs import Observation, ToyConfig
from experiment.command_line.overrides import compose_words
from experiment.launching.launch import launch
from experiment.training.peers import TrainingCallback, build_vec_env, policy_of, restore
from harness.checkpoint import load_latest

SHARED = ["threads=1", "device=cpu", "steps=120", "log_every=24", "checkpoint_every=48", "eval_episodes=4"]
WORDS = {
    "sb3_dqn": ["env=toy", "agent.learning_starts=24", "agent.buffer_size=200", "agent.batch_size=8"],
    "sb3_ppo": ["env=toy", "agent.rollout_steps=8", "agent.batch_size=16", "agent.epochs=1"],
    "sb3_sac": ["env=pointmass", "agent.learning_starts=24", "agent.buffer_size=200", "agent.batch_size=8"],
}
WORDS["sb3_sac"] += ["agent.train_every=4", "env.size=36", "env.time_limit=9"]


def run(folder, agent, *words):
    return script.main([f"agent={agent}", *WORDS[agent], *SHARED, f"run_dir={folder}", *words])


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What a run of each agent leaves."""

    @cache
    def folder(agent):
        made = tmp_path_factory.mktemp(agent)
        assert run(made, agent, "eval_every=60", "eval_every_episodes=2") == 0
        return made

    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("agent", PEERS)
def test_a_run_leaves_what_ours_leave(agent, left):
    folder = left(agent)
    logged = rows(folder)
    assert [row["step"] for row in logged if "train/n_updates" in row][-1] == 120
    assert {row["step"] for row in logged if "eval/mean_reward" in row} == {60, 120}
    tags = {tag for row in logged for tag in row}
    assert tags >= {"rollout/score", "rollout/ep_rew_mean", "train/learning_rate", "train/n_updates"}
    assert logged[-1]["clock"]["updates"] > 0
    scalars = set(EventAccumulator(str(folder)).Reload().Tags()["scalars"])
    assert scalars >= {"rollout/ep_rew_mean", "eval/mean_reward", "time/fps", "Score/evaluation"}
    report = json.loads((folder / "report.json").read_text())
    assert report["summary"]["n"] == 4
    assert report["command"].startswith(f"python train.py env={'pointmass' if agent == 'sb3_sac' else 'toy'}")
    assert report["random_play"]["n"] == 8
    assert (folder / "game.mp4").stat().st_size > 0
    kind = getattr(stable_baselines3, agent.removeprefix("sb3_").upper())
    pixels = np.random.default_rng(0).integers(256, size=(3, 4, 36, 36), dtype=np.uint8)
    if agent != "sb3_sac":
        expected = saved_model(folder, agent)(Observation(pixels))
        np.testing.assert_array_equal(kind.load(folder / "model.zip").predict(pixels, deterministic=True)[0], expected)


def saved_model(folder, agent):
    """The policy in the checkpoint of a run."""
    config = compose_words("config", f"agent={agent}", *WORDS[agent]).config
    env = build_vec_env(ToyConfig(), 4, clip_reward=True)
    model = PEERS[agent](**config.agent).build(env, gamma=0.99, seed=9, device="cpu")
    restore(model, folder, 0)
    return policy_of(model)


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on(left, tmp_path):
    shutil.copytree(left("sb3_dqn"), tmp_path, dirs_exist_ok=True)
    names = ("model.zip", "report.json", "game.mp4")
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    assert run(tmp_path, "sb3_dqn") == 0
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    first = load_latest(tmp_path / "checkpoints").state["networks"]["policy"]
    assert run(tmp_path, "sb3_dqn", "steps=180", "eval_episodes=0") == 0
    state = load_latest(tmp_path / "checkpoints").state
    assert state["progress"]["steps"] == 180
    assert any(not torch.equal(a, b) for a, b in zip(first.values(), state["networks"]["policy"].values(), strict=True))
    steps = [row["step"] for row in rows(tmp_path)]
    assert steps == sorted(steps)
    assert steps[-1] == 180


def test_copies_of_neighbouring_seeds_share_no_seed(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(DummyVecEnv, "seed", lambda self, seed: begun.append({seed + i for i in range(self.num_envs)}))
    for seed in (0, 1):
        run(tmp_path / str(seed), "sb3_dqn", f"seed={seed}", "env.num_envs=4", "steps=4", "eval_episodes=0")
    assert len(begun) == 2
    assert not begun[0] & begun[1]


def test_an_error_saves_first_and_no_weights_of_an_earlier_step_stay(left, tmp_path, monkeypatch, capsys):
    shutil.copytree(left("sb3_dqn"), tmp_path, dirs_exist_ok=True)
    step = TrainingCallback._on_step

    def fail(self):
        going_on = step(self)
        if self.num_timesteps > 150:
            raise RuntimeError("lost")
        return going_on

    monkeypatch.setattr(TrainingCallback, "_on_step", fail)
    assert run(tmp_path, "sb3_dqn", "steps=180") == 2
    assert capsys.readouterr().err.endswith("error: lost\n")
    assert load_latest(tmp_path / "checkpoints").state["progress"]["saved"] > 150
    assert not (tmp_path / "model.zip").exists()


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, monkeypatch):
    step = TrainingCallback._on_step

    def stopped(self):
        if self.num_timesteps == 60:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingCallback, "_on_step", stopped)
        assert run(tmp_path, "sb3_dqn") == 143
    state = load_latest(tmp_path / "checkpoints").state
    assert state["progress"]["saved"] == state["progress"]["steps"] == 60
    updates = state["progress"]["updates"]
    assert not (tmp_path / "report.json").exists()
    restored = []
    monkeypatch.setattr(DQN, "learn", lambda self, *_, **__: restored.append((self.num_timesteps, self._n_updates)))
    run(tmp_path, "sb3_dqn")
    assert restored == [(60, updates)]


def test_updates_are_counted_at_every_step(tmp_path, monkeypatch):
    """A checkpoint may be saved at any of them, after an error or a signal."""
    step, counted = TrainingCallback._on_step, []

    def watched(self):
        goes_on = step(self)
        counted.append(self._run.progress.updates == self.model._n_updates)
        return goes_on

    monkeypatch.setattr(TrainingCallback, "_on_step", watched)
    assert run(tmp_path, "sb3_dqn") == 0
    assert len(counted) > 10
    assert all(counted)


@pytest.mark.parametrize("clip", [True, False])
def test_the_learner_sees_clipped_rewards_and_the_log_raw_ones(clip, monkeypatch):
    env = build_vec_env(ToyConfig(num_envs=2), 4, clip)
    obs = env.reset()
    ended = (obs[0], 5.0, True, False, {})
    monkeypatch.setattr(env.envs[0].unwrapped, "step", lambda action: ended)
    _, reward, _, infos = env.step([1, 1])
    assert reward.tolist() == [1 if clip else 5, 0]
    assert infos[0]["episode"]["r"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("agent=sb3_dqn aux=rotation", "aux.rotation.weight=1.0 does not apply to agent=sb3_dqn: leave it out"),
        ("agent=sb3_ppo encoder=nature", "encoder.name=nature does not apply to agent=sb3_ppo"),
        ("agent=sb3_dqn replay_ratio=1", "replay_ratio=1"),
        ("agent=sb3_dqn agent.hidden=3", "unknown key 'agent.hidden'"),
        ("agent=sb3_dqn agent.learning_rate=0", "agent.learning_rate must be above 0, got 0.0"),
        ("agent=sb3_dqn agent.batch_size=-1", "agent.batch_size must be above 0, got -1"),
        (
            "agent=sb3_dqn agent.buffer_size=100 agent.train_every=3",
            "agent.train_every=3 and env.num_envs=4: one must be a multiple",
        ),
        (
            "agent=sb3_sac agent.buffer_size=100",
            "agent=sb3_sac does not support Discrete(3) actions: use agent=sb3_ppo",
        ),
        ("agent=sb3_dqn env=bitflip", "env=bitflip gives states"),
    ],
)
def test_what_does_not_apply_is_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script.main(["env=toy", *words.split()]) == 2
    printed = capsys.readouterr().err.replace("\n", " ")
    assert said in printed
    assert printed.count("error:") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("every", "copies", "cadence"), [(4, 8, (1, 2)), (4, 4, (1, 1)), (8, 2, (4, 1)), (1, 1, (1, 1))]
)
def test_an_update_for_every_so_many_steps_of_all_copies(every, copies, cadence):
    found = SB3DQNConfig(train_every=every).cadence(copies)
    assert (found["train_freq"], found["gradient_steps"]) == cadence


def test_peers_are_groups_of_a_sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert launch(script.run, "config", ["-m", "env=toy", "agent=dqn,sb3_ppo", *SHARED]) == 0
    groups = group_runs(read_runs(find_runs(["runs"])), compare.IGNORED)
    assert [group.label for group in groups] == ["agent=dqn", "agent=sb3_ppo"]
    assert all(run.final is not None for group in groups for run in group.all_runs)


def test_other_commands_say_whose_agent_it_is(left, capsys):
    assert evaluate.main([f"checkpoint={left('sb3_ppo')}"]) == 2
    assert "agent=sb3_ppo is a Stable-Baselines3 agent" in capsys.readouterr().err
