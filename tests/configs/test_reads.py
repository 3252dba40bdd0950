"""No key is dead: what tiny runs of every command read of their configs is recorded, and has to be all of it."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import line_env  # noqa: F401  it registers Line-v0
import numpy as np
import pytest
import run_help
from gymnasium.spaces import Discrete

import evaluate
import pretrain
import probe
from agents import AGENTS, AgentConfig
from agents.base import AuxSchedule
from agents.config import Head, Target
from agents.peers import PEERS, OffPolicyConfig, PeerConfig
from aux_tasks import TaskConfig
from configs.schema import Config, EvaluateConfig, PretrainConfig, ProbeConfig
from configs.sources import SOURCES, BallsConfig, FramesConfig, SourceConfig, TripletsConfig
from encoders import EncoderConfig
from envs import (
    ENVS,
    DmcConfig,
    EnvConfig,
    GraspingConfig,
    GymGoalConfig,
    PointMassConfig,
    PusherConfig,
    Rollout,
    ToyConfig,
)
from experiment.sources.build import build_source
from experiment.training.peers import build_vec_env
from replay import ReplayConfig
from replay.config import SyntheticConfig

UNIONS = (EnvConfig, AgentConfig, PeerConfig, SourceConfig)
REPLAYS = (ReplayConfig, SyntheticConfig)
ROOTS = (Config, PretrainConfig, ProbeConfig, EvaluateConfig, EncoderConfig, *REPLAYS, TaskConfig, *UNIONS)
KINDS = [kind for kind in ROOTS if kind not in UNIONS] + [*ENVS.values(), *AGENTS.values(), *SOURCES.values()]
KINDS += PEERS.values()

Reads = set[tuple[type, str]]  # of a config, the key


def recording(reads: Reads, patch: pytest.MonkeyPatch) -> None:
    """Add to `reads` from now on, but for what copies, compares, prints or validates a config as a whole."""
    generic = {dataclasses.__file__, "<string>"}  # asdict, replace; __eq__ and __hash__

    def read(self: Any, name: str) -> Any:
        frame, depth = sys._getframe(1), 0
        used = frame.f_code.co_filename not in generic
        while used and frame and depth < 4:  # __post_init__ may ask helpers
            used = frame.f_code.co_name != "__post_init__"
            frame, depth = frame.f_back, depth + 1  # type: ignore[assignment]
        if used:
            reads.add((type(self), name))
        return object.__getattribute__(self, name)

    for root in ROOTS:
        patch.setattr(root, "__getattribute__", read, raising=False)


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reads]:
    """What is read of all configs while every command runs once on a small world."""
    folder, found = tmp_path_factory.mktemp("reads"), set[tuple[type, str]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("experiment.probing.build.ONLINE_FRAMES", 320)
        recording(found, patch)
        trained = trainings(folder)
        pretrained = pretrainings(folder)
        probes(pretrained)
        evaluate.run(EvaluateConfig(str(trained), episodes=2, num_envs=2, device="cpu"), [])
        worlds(folder)
        peers()
        yield found


def trainings(folder: Path) -> Path:
    """DQN with a file for its frames, with soft targets, SAC, and SAC on features; the folder of the first."""
    aux = {"rotation": TaskConfig(final_weight=0.5)}
    short = {"steps": 60, "eval_every": 30, "eval_every_episodes": 1, "until_score": 99, "aux": aux}
    annealed = ReplayConfig(capacity=90, final_n_step=1)
    for kind, agent, changes in (
        (run_help.alternating, {"target": Target.hard}, {"eval_episodes": 1, "probe_every": 30}),
        (run_help.small, {"aux_schedule": AuxSchedule.alternating, "head": Head.quantile}, {"replay": annealed}),
        (run_help.continuous, {"final_learning_rate": 1e-5}, {"replay": ReplayConfig(capacity=90, n_step=1)}),
        (run_help.synthetic, {}, {"aux": {}}),
    ):
        config = kind(folder / kind.__name__, **(short | changes))
        changed = dataclasses.replace(config, agent=dataclasses.replace(config.agent, **agent))
        (folder / kind.__name__).mkdir()
        assert run_help.run(changed) == 0
    return folder / "alternating"


def pretrainings(folder: Path) -> Path:
    settings = {"steps": 2, "batch_size": 8, "threads": 1, "device": "cpu", "log_every": 1, "diagnose_every": 2}
    config = PretrainConfig(
        FramesConfig(frames=200, path=str(folder / "frames")),
        ToyConfig(num_envs=2),
        EncoderConfig("small"),
        {"rotation": TaskConfig()},
        run_dir=str(folder / "runs/pretrained"),  # whose paths a probe takes unasked
        **settings,
    )
    assert pretrain.pretrain(config) == 0
    return folder / "runs/pretrained"


def probes(pretrained: Path) -> None:
    settings = {"seeds": 1, "train_labels": 60, "test_labels": 40, "steps": 1, "batch_size": 8, "threads": 1}
    balls = BallsConfig(episodes=4, length=30)
    for changes in ({"labels": []}, {"aux": {"rotation": TaskConfig()}, "mode": "joint", "source": None}):
        config = ProbeConfig(**{"checkpoint": str(pretrained), "aux": {}, "device": "cpu", **settings, **changes})
        assert probe.probe(config, []) == 0
    build_source(balls, ToyConfig(), seed=0)


def worlds(folder: Path) -> None:
    """Every environment and every source, built alone."""
    gas: dict[str, Any] = {"background": "gas"}
    keys = {
        DmcConfig: gas,
        PusherConfig: gas | {"time_limit": 1},
        GymGoalConfig: {"id": "Line-v0", "observe": "pixels"},
    }
    for kind in ENVS.values():
        config = kind(**keys.get(kind, {}), num_envs=1)
        config.check_training()
        with closing(config.build()) as vector:
            Rollout(vector, 2, config.padding).reset(0)
            for _ in range(2):  # a pusher's second episode begins
                vector.step(np.asarray(vector.action_space.sample())[None])
    for name, kind in SOURCES.items():
        needed = {"images": {"folder": str(folder)}, "replay": {"run": str(folder / "alternating")}}
        with suppress(ValueError):  # an empty folder
            build_source(kind(**needed.get(name, {})), ToyConfig(), seed=0)
    own = TripletsConfig(folder=str(folder / "own"))
    with suppress(ValueError):
        build_source(own, ToyConfig(), seed=0)
    build_source(TripletsConfig(grasps=2, path=str(folder / "triplets")), GraspingConfig(num_envs=2), seed=0)


def peers() -> None:
    """Every agent of Stable-Baselines3, built alone."""
    for kind in PEERS.values():
        world = ToyConfig() if Discrete in kind.spaces else PointMassConfig(size=36)
        with closing(build_vec_env(world, 2, clip_reward=True)) as env:
            kind(**({"buffer_size": 8} if issubclass(kind, OffPolicyConfig) else {})).build(env)


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_read(kind: type, reads: Reads) -> None:
    keys = {field.name for field in dataclasses.fields(kind)}
    tag = {"name"} if issubclass(kind, UNIONS) else set()  # read before there is a config
    assert keys - tag <= {name for read, name in reads if read is kind}


def test_a_dead_key_is_noticed_though_configs_are_copied_compared_and_printed() -> None:
    @dataclasses.dataclass(frozen=True)
    class Unread(ToyConfig):
        dead: int = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            if any(getattr(self, name) < 0 for name in ("dead", "num_envs")):
                raise ValueError

    found: Reads = set()
    with pytest.MonkeyPatch.context() as patch:
        recording(found, patch)
        config = Unread(size=24)
        assert dataclasses.replace(config, balls=1) == config
        assert hash(config) == hash(Unread(**dataclasses.asdict(config)))
        assert "dead=0" in repr(config)
        assert found == set()
        with closing(config.build()) as env:
            env.reset(0)
            env.step(np.zeros(4, int))
    read = {name for kind, name in found if kind is Unread}
    assert read >= {"size", "num_envs", "balls"}
    assert "dead" not in read
