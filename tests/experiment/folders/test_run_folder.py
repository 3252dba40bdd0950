"""The folder of a run: its name, whose it is, and what a run finds in it and does not follow."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import run_help

from agents import DQNConfig
from aux_tasks import TaskConfig
from configs.schema import Config, PretrainConfig, ProbeConfig
from encoders import EncoderConfig
from envs import ToyConfig
from experiment.command_line.composition import freeze
from experiment.command_line.overrides import compose_words
from experiment.folders.run_folder import claim_run_dir, with_run_dir
from replay import ReplayConfig

PLACES = (
    "metrics.jsonl", ".lock", "config.yaml", "agent.safetensors", "report.json", "game.mp4", "pictures",
    "projector_config.pbtxt", "pictures/rotation-120.png", "attribution/moment_0.png",
)  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "link to a folder", "pipe"])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_in_the_folder_leads_out_of_it(tmp_path: Path, place: str, kind: str) -> None:
    outside, path = tmp_path / "outside", tmp_path / "run" / place
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)
    if kind == "link to a file":
        outside.write_text("mine")
    if kind == "link to a folder":
        outside.mkdir()
    with pytest.raises(ValueError, match=f"{path} is a"), claim_run_dir(run_help.small(tmp_path / "run")):
        pass
    assert outside.exists() == (kind in ("link to a file", "link to a folder"))
    assert kind != "link to a file" or outside.read_text() == "mine"
    assert kind != "link to a folder" or not list(outside.iterdir())


def test_checkpoints_may_lie_on_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")
    with claim_run_dir(run_help.small(tmp_path / "run")) as run_dir:
        assert (run_dir / "config.yaml").is_file()


LONG = (
    "aux=[rotation,permutation,deepmdp] "
    + " ".join(
        f"{key}=3"
        for key in ("aux.deepmdp.options.hidden", "aux.rotation.options.hidden", "aux.permutation.options.hidden")
    )
    + " agent.epsilon_steps=7 agent.target_every=9 agent.decay_steps=8 batch_size=5"
)


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("env=toy", "toy/dqn/s0"),
        ("env=toy seed=3 steps=50 device=cpu threads=1 eval_episodes=2", "toy/dqn/s3"),
        ("env=toy agent.learning_rate=1e-3", "toy/dqn-learning_rate_0.001/s0"),
        ("env=toy agent.learning_rate=1e-4", "toy/dqn-learning_rate_0.0001/s0"),
        ("env=atari/breakout aux=[rotation,permutation]", "breakout/dqn+rotation+permutation/s0"),
        ("env=atari env.game=breakout env.sticky=0.25", "breakout/dqn-sticky_0.25/s0"),
        ("env=atari/pitfall2 env.num_envs=2", "pitfall2/dqn-num_envs_2/s0"),
        ("env=dmc env.domain=walker env.task=walk agent=sac", "walker_walk/sac/s0"),
        ("env=deep_sea env.size=40 env.cells=10", "deep_sea/dqn-cells_10-size_40/s0"),
        ("encoder=nature replay=prioritized", "pong/dqn-nature-prioritized/s0"),
        ("experiment=sac_cartpole env.background=gas", "cartpole_swingup_gas/sac-sac_cartpole/s0"),
        ("env=toy aux=[rotation,deepmdp] aux.rotation.weight=0.5", "toy/dqn+rotation+deepmdp-rotation.weight_0.5/s0"),
        ("env=toy aux=permutation aux.permutation.options.crop_rows=[1,9]", "toy/dqn+permutation-crop_rows_1_9/s0"),
    ],
)
def test_a_folder_is_named_by_all_that_changes_the_learning(words: str, folder: str) -> None:
    assert with_run_dir(compose_words("config", *words.split()), Config).run_dir == f"runs/{folder}"


def test_names_of_folders_differ_are_bounded_and_can_be_typed() -> None:
    names = {
        str(with_run_dir(compose_words("config", *LONG.split(), f"agent.hidden={hidden}"), Config).run_dir)
        for hidden in (8, 9, 10)
    }
    assert len(names) == 3
    for name in names:
        assert max(map(len, name.split("/"))) < 180
        assert freeze(compose_words("probe", f"checkpoint={name}").config, ProbeConfig).checkpoint == name
    pretrained = with_run_dir(compose_words("pretrain", "aux=rotation", "env=atari/breakout", "seed=2"), PretrainConfig)
    assert pretrained.run_dir == "runs/pretrain/frames-breakout/rotation/s2"
    given = with_run_dir(compose_words("config", "run_dir=elsewhere", "gamma=0.5"), Config)
    assert given.run_dir == "elsewhere"


def test_a_folder_keeps_its_run(tmp_path: Path) -> None:
    parts = (ToyConfig(), DQNConfig(), EncoderConfig(), ReplayConfig())
    first = Config(*parts, run_dir=str(tmp_path), aux={"rotation": TaskConfig()})
    for allowed in (first, replace(first, steps=2 * first.steps, eval_episodes=1, threads=2)):
        with claim_run_dir(allowed) as folder:
            assert folder == tmp_path
    before = (tmp_path / "config.yaml").read_text()
    for key, other in {
        "gamma=0.99, this one has 0.9": replace(first, gamma=0.9),
        "agent.hidden=256, this one has 8": replace(first, agent=DQNConfig(hidden=8)),
        "aux.rotation.weight=1.0, this one has none": replace(first, aux={}),
        "env.num_envs=4, this one has 2": replace(first, env=ToyConfig(num_envs=2)),
    }.items():
        with pytest.raises(ValueError, match=f"holds a run with {key}"), claim_run_dir(other):
            pass
    more = replace(first, aux={**first.aux, "curl": TaskConfig()})
    with pytest.raises(ValueError, match=r"a run without aux.curl.weight, this one has 1.0"), claim_run_dir(more):
        pass
    assert (tmp_path / "config.yaml").read_text() == before
