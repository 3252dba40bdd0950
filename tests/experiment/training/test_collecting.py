"""Collecting beside updates; actors, on a Ray that runs here, and on a real one where it is installed."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import run_help
import torch
from gymnasium.spaces import Discrete

import train as script
from agents import SACConfig
from aux_tasks import TaskConfig
from configs.collect import CollectConfig
from configs.schema import Config, GoalConfig
from encoders import EncoderConfig
from envs import AtariConfig, BitFlipConfig, DmcConfig, EnvError, PointMassConfig, Rollout, ToyConfig
from envs.atari import AtariVector
from experiment.command_line.composition import read_config
from experiment.launching.launch import launch
from experiment.training import ray_collecting
from experiment.training.build import build
from experiment.training.collecting import OverlappedCollector
from experiment.training.run import save_training
from harness.seeding import derive
from replay import ReplayConfig

BLOCK = 4
GOALS = {"env": BitFlipConfig(num_envs=2, bits=9), "encoder": EncoderConfig(name="state"), "frame_stack": 1}
COLLECT = CollectConfig("ray", actors=2, block=BLOCK)


class NearRay:
    """Ray's actors in this process: a call is made when it is asked for, and everything is copied on its way.

    Args:
        lost: numbers of the calls whose actor is lost meanwhile.
    """

    exceptions = SimpleNamespace(
        **{
            name: type(name, (Exception,), {})
            for name in ("RayActorError", "ObjectLostError", "GetTimeoutError", "RayTaskError")
        }
    )

    def __init__(self, lost=()):
        self.lost, self.calls, self.options = lost, [], []

    def remote(self, **options):
        self.options.append(options)
        return lambda kind: SimpleNamespace(remote=lambda *arguments: self.start(kind(*self.put(arguments))))

    def start(self, actor):
        def ask(*arguments):
            self.calls.append(arguments)
            if len(self.calls) - 1 in self.lost:
                return self.exceptions.RayActorError("killed")
            try:
                return self.put(actor.collect(*arguments))
            except EnvError as error:
                failed = self.exceptions.RayTaskError("traceback\nand more")
                failed.cause = error
                return failed

        return SimpleNamespace(collect=SimpleNamespace(remote=ask))

    def put(self, value):
        return pickle.loads(pickle.dumps(value))

    def get(self, task, timeout):
        if isinstance(task, Exception):
            raise task
        return task

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": size}} for size in (1.0, 3.0)] + [{"Alive": False}]

    def shutdown(self):
        pass


@pytest.fixture
def near(monkeypatch):
    ray = NearRay()
    monkeypatch.setattr(ray_collecting, "connect", lambda *_: ray)
    return ray


def small(folder, **changes):
    """Games of Catch that end in nine steps or at a catch, in two copies for each of two actors."""
    settings = {"env": ToyConfig(num_envs=2, time_limit=9), "collect": COLLECT, "checkpoint_every": 40}
    return run_help.small(folder, **settings | changes)


def same(row, expected):
    return all(map(np.array_equal, row, expected))


def each(function, row):
    return type(row)(*(None if column is None else function(column) for column in row))


@pytest.mark.parametrize(
    "config", [AtariConfig(num_envs=2, size=42), DmcConfig(num_envs=2, size=16, processes=1)], ids=lambda c: c.name
)
def test_a_step_that_was_begun_has_the_actions_of_its_beginning(config):
    env, weights = config.build(), 0

    def act(_, explore=True):
        assert explore
        rng = np.random.default_rng(weights)
        if isinstance(env.action_space, Discrete):
            return rng.integers(env.action_space.n, size=2)
        return rng.uniform(-1, 1, (2, *env.action_space.shape)).astype(np.float32)

    plain = Rollout(config.build(), 2, "zeros")
    overlapped = OverlappedCollector(SimpleNamespace(act=act), env, 2, "zeros")
    for rollout in (plain, overlapped):
        rollout.reset(5)
    for begun in (False, True, True, False, True):
        expected = plain.step(act)
        if begun:
            overlapped.begin()
            weights += 1  # an update
        assert same(overlapped.collect(), expected)
        assert np.array_equal(overlapped.observation.pixels, plain.observation.pixels)
    assert weights == 3
    plain.reset(6)
    overlapped.begin()
    overlapped.reset(6)  # as after a save that a signal asks for
    assert same(overlapped.collect(), plain.step(act))
    for rollout in (plain, overlapped):
        rollout.env.close()


def test_updates_run_while_the_environment_steps_and_no_step_is_lost_at_a_checkpoint(tmp_path, monkeypatch):
    events = []

    def watch(owner, name):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given: (events.append(name), original(*given))[1])

    for owner, name in ((AtariVector, "step_async"), (AtariVector, "step_wait"), (script, "update")):
        watch(owner, name)
    monkeypatch.setattr(script, "save_training", lambda run: (events.append("save"), save_training(run)))
    env = AtariConfig(num_envs=2, size=42)
    config = small(tmp_path, env=env, collect=CollectConfig("overlap"), eval_episodes=0)
    assert run_help.run(config) == 0
    letters = {"step_async": "<", "step_wait": ">", "update": "u", "save": "s"}
    order = "".join(letters[event] for event in events)
    assert re.fullmatch("((<u*>)+u*s)+", order), order
    assert "<u>" in order
    assert order.count("s") == 3


def test_an_environment_that_steps_in_the_process_that_learns_is_refused(tmp_path):
    with pytest.raises(ValueError, match="collect=overlap needs an environment that steps in other threads"):
        build(small(tmp_path, collect=CollectConfig("overlap")))


def test_every_actor_plays_its_own_games_with_the_weights_of_its_block(near, tmp_path):
    """As single rollouts that get the same weights at the same steps do, of greedy actions."""
    config = small(tmp_path, agent=replace(small(tmp_path).agent, epsilon_start=0.0, epsilon_steps=10**9))
    parts, rng = build(config), torch.Generator().manual_seed(0)
    before = []  # the weights before each step
    parts.rollout.reset(7)
    rows = []
    for _ in range(6 * BLOCK - 1):
        before.append({name: value.clone() for name, value in parts.agent.state_dict().items()})
        rows.append(parts.rollout.collect())
        for parameter in parts.agent.parameters():
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    asked = [0, 0, *(block * BLOCK - 1 for block in range(1, 5))]  # the step before which each block was asked for
    chosen = set()
    for actor in range(2):
        env = config.env.build()
        rollout = Rollout(env, config.frame_stack, config.env.padding)
        rollout.reset(derive(derive(7, "actor", actor), "env"))
        for t, row in enumerate(rows):
            parts.agent.load_state_dict(before[asked[t // BLOCK]])
            expected = rollout.step(lambda obs: parts.agent.act(obs, explore=False))
            assert same(each(lambda column, actor=actor: column[2 * actor :][:2], row), expected), (actor, t)
            chosen |= {*expected.action}
        assert np.array_equal(parts.rollout.frame[2 * actor : 2 * actor + 2], rollout.frame)
    assert len(chosen) == 3


def played(config, actions, starts):
    """Rows and episodes of a single rollout with these actions, that is cut where a new one starts at (row, seed)."""
    rollout, rows, episodes = Rollout(config.env.build(), config.frame_stack, config.env.padding), [], []
    for (begin, seed), end in zip(starts, [*(row for row, _ in starts[1:]), len(actions)], strict=True):
        if begin:
            last, nothing = rows[-1], np.zeros(config.env.num_envs, bool)
            last.truncated[last.valid & ~last.terminated] = True
            closing = (rollout.frame, nothing, last.action, 0.0 * last.reward, nothing, nothing, nothing)
            rows.append(type(last)(*closing, *(rollout.goals or ())))
        rollout.reset(seed)
        for t in range(len(rows), end):
            rows.append(each(np.copy, rollout.step(lambda _, t=t: actions[t])))
            episodes += [(t, *episode) for episode in rollout.episodes]
    return rows, episodes


@pytest.mark.parametrize(
    (
        "block",
        "lost",
        "cuts",
    ),  # lost: calls; cuts: for each actor the row that ends its games, and the number of the loss
    [
        (4, (), ([], [])),
        (4, (1,), ([], [(0, 1)])),  # before its first step
        (4, (4,), ([(8, 1)], [])),  # in the middle of a game
        (5, (4,), ([(10, 1)], [])),  # between two games
        (3, (7,), ([], [(9, 1)])),  # at the last step of a game
        (2, (3,), ([], [(2, 1)])),
        (4, (3, 4), ([], [(4, 2)])),  # and its successor too
        (4, (5, 10), ([], [(8, 1), (16, 2)])),
        (4, (2, 3), ([(4, 1)], [(4, 2)])),  # both at once
    ],
)
@pytest.mark.parametrize("world", [{}, GOALS], ids=["catch", "bitflip"])
def test_no_transition_is_torn_where_actors_are_lost(near, block, lost, cuts, world, tmp_path):
    """Rows are those of single rollouts, between which the old games are truncated and the new ones begin."""
    near.lost = lost
    config = small(tmp_path, collect=replace(COLLECT, block=block), **world)
    parts, rows, episodes = build(config), [], []
    parts.rollout.reset(7)
    for t in range(24):
        rows.append(parts.rollout.collect())
        parts.replay.add(*rows[-1])  # refuses what breaks the order of an episode
        episodes += [(t, *episode) for episode in parts.rollout.episodes]
    expected_episodes = []
    for actor in range(2):
        mine = [each(lambda column, actor=actor: column[2 * actor :][:2], row) for row in rows]
        names = [(0, ()), *((row, (number,)) for row, number in cuts[actor])]
        starts = [(row, derive(derive(7, "actor", actor, *number), "env")) for row, number in dict(names).items()]
        expected, ended = played(config, [row.action for row in mine], starts)
        for t, (row, other) in enumerate(zip(mine, expected, strict=True)):
            assert same(row, other), (actor, t)
        expected_episodes += [(t, copy + 2 * actor, *counts) for t, copy, *counts in ended]
    assert episodes == sorted(expected_episodes)
    assert len(episodes) >= 4


def test_weights_are_one_to_two_blocks_old(near, tmp_path):
    parts = build(small(tmp_path))
    parts.rollout.reset(7)
    ages = []
    for _ in range(4 * BLOCK):
        parts.rollout.collect()
        ages.append(parts.rollout.drain()["collect/weight_age"])
        parts.agent.updates += 1
    assert ages[2 * BLOCK :] == [*range(BLOCK + 1, 2 * BLOCK + 1)] * 2


@pytest.mark.parametrize(
    ("actors", "ends"),
    [(1, [0.01]), (2, [0.4, 0.4**8]), (8, [0.4 ** (1 + i) for i in range(8)])],
)
def test_actors_end_at_the_epsilons_of_ape_x(actors, ends, tmp_path):
    agent = small(tmp_path).agent
    assert [agent.for_actor(i, actors).epsilon_end for i in range(actors)] == pytest.approx(ends)
    assert run_help.continuous(tmp_path).agent.for_actor(1, 2) == run_help.continuous(tmp_path).agent


def with_own_goals(folder, **changes):
    """SAC whose goals are latents of an auxiliary task that learns beside it."""
    parts = {
        "env": PointMassConfig(num_envs=3, time_limit=9),
        "agent": SACConfig(hidden=8),
        "encoder": EncoderConfig(name="small"),
        "replay": ReplayConfig(capacity=90, n_step=1),
        "aux": {"rig": TaskConfig()},
        "goal": GoalConfig(space="aux", observe="pixels"),
        "frame_stack": 1,
        "clip_reward": False,
    }
    return run_help.small(folder, **parts | changes)


@pytest.mark.parametrize("kind", [small, run_help.continuous, with_own_goals])
def test_a_killed_training_resumes_bit_for_bit(near, kind, tmp_path, monkeypatch):
    config = kind(tmp_path / "undisturbed", collect=COLLECT)
    assert run_help.run(config) == 0
    killed = replace(config, run_dir=str(tmp_path / "killed"))

    def die():
        run_help.at_step(120, lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)
        return run_help.run(killed)

    assert run_help.in_child(die) == -signal.SIGKILL
    assert list((tmp_path / "killed/checkpoints").glob("step_*"))
    assert run_help.run(killed) == 0
    assert run_help.final(tmp_path / "killed") == run_help.final(tmp_path / "undisturbed")
    assert all("collect/weight_age" in row for row in run_help.rows(tmp_path / "killed") if "train/loss" in row)


def test_actors_see_goals_as_the_task_of_the_learner_embeds_them(near, tmp_path):
    parts = build(with_own_goals(tmp_path, collect=COLLECT))
    parts.rollout.reset(7)
    for parameter in parts.suite.parameters():
        parameter.data.add_(0.1)
    rows = [parts.rollout.collect() for _ in range(3 * BLOCK)]
    with torch.no_grad():
        expected = parts.suite.tasks["rig"].embed(torch.from_numpy(rows[-1].frame), parts.agent.encoder)
    np.testing.assert_allclose(rows[-1].achieved, expected, rtol=1e-4, atol=1e-5)


def test_what_fails_in_an_actor_ends_the_run_with_one_line(near, tmp_path, monkeypatch):
    """What was learned before is saved."""

    def fail():
        raise EnvError("the emulator died")

    run_help.at_step(100, fail, monkeypatch)
    with pytest.raises(EnvError, match=r"^actor \d: the emulator died$"):
        run_help.run(small(tmp_path))
    assert [*(tmp_path / "checkpoints").glob("step_*")]


def test_actors_that_are_always_lost_end_the_run(near, tmp_path):
    near.lost = range(6, 1_000)
    with pytest.raises(EnvError, match="lost 3 times in a row: killed"):
        run_help.run(small(tmp_path))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["collect=slurm"], "local, overlap, ray"),
        (["collect.actors=2"], "collect.actors=2: belongs to collect=ray"),
        (["collect=ray", "collect.actors=0"], "collect.actors must be at least 1, got 0"),
        (["collect=ray", "collect.block=1"], "collect.block must be at least 2, got 1"),
        (["collect=ray", "collect.cpus=0"], "collect.cpus must be above 0, got 0.0"),
        (["collect=ray", "collect.actors=4", "env.num_envs=4", "learning_starts=40"], "64, replay.n_step + 1 steps"),
    ],
)
def test_wrong_settings_are_one_line(words, named, capsys):
    assert launch(pytest.fail, "config", ["env=toy", *words], module=__name__) == 2
    assert named in capsys.readouterr().err.replace("\n", " ")


def test_an_actor_without_the_folder_says_so(tmp_path):
    actor = ray_collecting.Actor(small(tmp_path), str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"gone does not exist on .*: collect=ray needs a folder that all nodes share"):
        actor.collect(1, ray_collecting.Weights({}, 0, 0), 0)


WORDS = ["env=toy", "env.num_envs=2", "encoder=small", "batch_size=4", "replay.capacity=1000", "learning_starts=60"]
WORDS += ["log_every=60", "diagnose_every=0", "checkpoint_every=60", "eval_episodes=0", "threads=1", "run_dir=run"]
WORDS += ["collect=ray", "collect.actors=2", "collect.cpus=0.1", "collect.block=4"]


def start_training(folder, steps):
    """The command on a Ray of this machine."""
    pytest.importorskip("ray")
    script = str(Path(__file__).parents[3] / "train.py")
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    return subprocess.Popen(
        [sys.executable, script, *WORDS, f"steps={steps}"],
        cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(found, process):
    deadline = time.monotonic() + 200
    while not (there := found()):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return there


@pytest.mark.slow
def test_a_killed_learner_resumes_on_ray_bit_for_bit(near, tmp_path):
    """And learns what it learns from actors in its own process."""
    killed = start_training(tmp_path, 600)
    wait_for(lambda: [*tmp_path.glob("run/checkpoints/step_*")], killed)
    killed.kill()
    killed.communicate()
    resumed = start_training(tmp_path, 600)
    assert resumed.wait(200) == 0, resumed.stderr.read()
    assert re.search(r"step [1-9]\d* of 600", resumed.stderr.read())
    config = read_config(tmp_path / "run/config.yaml", Config)
    assert run_help.run(replace(config, run_dir=str(tmp_path / "near"))) == 0
    assert run_help.final(tmp_path / "run") == run_help.final(tmp_path / "near")


@pytest.mark.slow
def test_a_killed_actor_is_replaced(tmp_path):
    training = start_training(tmp_path, 3_000)
    wait_for(lambda: [*tmp_path.glob("run/checkpoints/step_*")], training)
    actors = [p for p in psutil.Process(training.pid).children(recursive=True) if "ray::Actor" in " ".join(p.cmdline())]
    assert len(actors) == 2
    actors[0].kill()
    _, printed = training.communicate(timeout=250)
    assert training.returncode == 0, printed
    assert re.search(
        r"actor [01] was lost, its running episodes are cut, another one starts", printed.replace("\n", " ")
    )
    assert run_help.rows(tmp_path / "run")[-1]["step"] == 3_000
