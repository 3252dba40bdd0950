"""Every config composes, freezes, survives a file; a folder keeps its run."""

import inspect
import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from agents import AGENTS, DQNConfig, SACConfig
from agents.base import Precision
from aux_tasks import TaskConfig
from aux_tasks.registry import TASKS
from configs.schema import Config, PretrainConfig, ProbeConfig, default_run_dir, flat
from configs.sources import IdxConfig
from encoders import ENCODERS, EncoderConfig
from envs import AtariConfig, DmcConfig, ToyConfig
from experiment.build import build
from experiment.composition import freeze, read_config, register, write_config
from experiment.run_folder import claim_run_dir
from replay import ReplayConfig

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.glob("*/*.yaml"))
VARIANTS = {"dbc_robust": "dbc"}  # a task with other options


def composed(*words: str, kind: Any = Config, name: str = "config") -> Any:
    register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        return freeze(compose(name, list(words)), kind)


def pretraining(*words: str) -> PretrainConfig:
    return composed(*words, kind=PretrainConfig, name="pretrain")


def config(**changes: Any) -> Config:
    return replace(Config(ToyConfig(), DQNConfig(), EncoderConfig(), ReplayConfig()), **changes)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_composes_and_survives_a_file(file: Path, tmp_path: Path) -> None:
    made = composed(f"{file.parent}={file.stem}")
    write_config(made, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml", Config) == made
    if str(file.parent) in ("encoder", "aux"):
        chosen = {"encoder": [made.encoder.name], "aux": list(made.aux) or ["none"]}[str(file.parent)]
        assert chosen == [VARIANTS.get(file.stem, file.stem)]


def test_there_is_a_file_for_every_encoder_and_task() -> None:
    assert {file.stem for file in FILES if str(file.parent) == "encoder"} == set(ENCODERS)
    assert {file.stem for file in FILES if str(file.parent) == "aux"} == {"none", *TASKS, *VARIANTS}


@pytest.mark.parametrize("name", TASKS)
def test_the_options_of_a_task_are_in_its_file_with_the_defaults_of_its_class(name: str) -> None:
    makers = [inspect.signature(kind.__init__) for kind in TASKS[name].__mro__ if "__init__" in vars(kind)]
    options = [option for maker in makers for option in maker.parameters.values() if option.kind is option.KEYWORD_ONLY]
    defaults = {option.name: option.default for option in options}
    assert yaml.safe_load((CONFIGS / "aux" / f"{name}.yaml").read_text()).get("options", {}) == defaults


def test_an_empty_command_line_gives_the_defaults_of_the_dataclasses() -> None:
    assert composed() == Config(AtariConfig(), DQNConfig(), EncoderConfig(), ReplayConfig())


def test_a_config_is_frozen_to_the_leaves() -> None:
    made = composed("aux=[rotation,permutation]", "aux.rotation.weight=0.5", "agent.target=hard", "env=toy")
    assert flat(made)["aux.rotation.weight"] == 0.5
    assert list(made.aux) == ["rotation", "permutation"]
    for node in (made, made.env, made.agent, made.aux["rotation"]):
        with pytest.raises(AttributeError):
            setattr(node, fields(node)[0].name, None)


def test_a_pretraining_is_frozen_too_and_needs_something_to_learn() -> None:
    made = pretraining("aux=[rotation,permutation]", "frame_stack=4", "seed=2", "env.game=breakout")
    assert made.env == AtariConfig(game="breakout")
    assert default_run_dir(made) == "runs/pretrain/frames-breakout/rotation+permutation/s2"
    assert pretraining("aux=rotation", "env=toy").env == ToyConfig()
    with pytest.raises(ValueError, match="nothing to learn: give aux=rotation"):
        pretraining()


def test_a_probe_is_frozen_too_and_leaves_the_source_to_the_run() -> None:
    def probing(*words: str) -> ProbeConfig:
        return composed("checkpoint=zoo/x", *words, kind=ProbeConfig, name="probe")

    assert probing() == ProbeConfig("zoo/x", {})
    made = probing("source=idx", "source.folder=data/y", "env=toy", "env.size=48", "labels=[digit]")
    assert (made.source, made.env, made.labels) == (IdxConfig("data/y"), ToyConfig(size=48), ["digit"])
    assert list(probing("mode=joint", "aux=rotation").aux) == ["rotation"]
    with pytest.raises(ValueError, match="checkpoint"):
        composed(kind=ProbeConfig, name="probe")


def test_default_run_dir() -> None:
    tasks = {"rotation": TaskConfig(), "permutation": TaskConfig()}
    assert default_run_dir(config()) == "runs/toy/dqn/s0"
    assert default_run_dir(config(env=AtariConfig(game="breakout"), aux=tasks, seed=3)) == (
        "runs/breakout/dqn+rotation+permutation/s3"
    )
    dmc = DmcConfig(domain="walker", task="walk")
    assert default_run_dir(config(env=dmc, agent=SACConfig())) == "runs/walker_walk/sac/s0"
    assert default_run_dir(config(env=replace(dmc, background="gas"))) == "runs/walker_walk_gas/dqn/s0"


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_is_its_own_group_and_survives_a_file(name: str, tmp_path: Path) -> None:
    made = composed(f"agent={name}", "agent.hidden=9", "agent.precision=bfloat16")
    assert type(made.agent) is AGENTS[name]
    assert (made.agent.hidden, made.agent.precision) == (9, Precision.bfloat16)
    write_config(made, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml", Config) == made


def test_the_arms_of_cartpole() -> None:
    words = ("aux=curl", "agent.random_shift=4", "env.background=gas")
    made, plain, dbc, best = (
        composed(f"experiment={e}", *w)
        for e, w in (("sac_cartpole", words), ("sac_cartpole", ()), ("dbc_cartpole", ()), ("deepmdp_cartpole", ()))
    )
    assert replace(made, aux={}, agent=plain.agent, env=plain.env) == plain
    assert (list(made.aux), made.agent.random_shift, made.env.background) == (["curl"], 4, "gas")
    assert replace(dbc, aux=best.aux) == best
    assert dbc.aux == {"dbc": replace(best.aux["deepmdp"], options=dbc.aux["dbc"].options)}
    assert dbc.aux["dbc"].options["form"] == "robust"
    assert (list(best.aux), best.agent.copies, best.env) == (["deepmdp"], 2, plain.env)
    assert default_run_dir(plain) == "runs/cartpole_swingup/sac/s0"
    paper = composed("experiment=dbc_paper")
    assert (paper.env.repeat, paper.batch_size, paper.agent.hidden, paper.encoder.name) == (2, 128, 1024, "control")
    assert paper.aux == {"dbc": replace(dbc.aux["dbc"], options={**dbc.aux["dbc"].options, "form": "released"})}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("agent=sac", "env=toy"), "agent=sac acts continuously, .*: use agent=dqn"),
        (("agent=dqn", "env=pointmass"), "agent=dqn chooses among actions, .*: use agent=sac"),
    ],
)
def test_an_agent_for_other_actions_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(composed(*words, "device=cpu"))


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_bfloat16_is_told_where_a_cpu_is_slow_at_it(
    precision: Precision, capability: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiment.build.cpu_capability", lambda: capability)
    build(config(device="cpu", agent=DQNConfig(precision=precision)))
    assert ("AVX-512" in caplog.text) is ((precision, capability) == (Precision.bfloat16, "AVX2"))


def test_a_device_of_no_such_kind_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"device must be one of auto, cpu, cuda, got 'cpuu': did you mean 'cpu'\?$"):
        build(config(device="cpuu"))


def test_the_backgrounds_of_evaluation_are_refused_in_training() -> None:
    with pytest.raises(ValueError, match=r"^env\.background_split=eval is for evaluation: leave it out"):
        build(composed("experiment=sac_cartpole", "env.background=gas", "env.background_split=eval", "device=cpu"))


def test_a_folder_keeps_its_run(tmp_path: Path) -> None:
    first = config(run_dir=str(tmp_path), aux={"rotation": TaskConfig()})
    for allowed in (first, replace(first, steps=2 * first.steps, eval_episodes=1, threads=2)):
        with claim_run_dir(allowed) as folder:
            assert folder == tmp_path
    before = (tmp_path / "config.yaml").read_text()
    for key, other in {
        "gamma=0.99, this one has 0.9": replace(first, gamma=0.9),
        "agent.hidden=256, this one has 8": replace(first, agent=DQNConfig(hidden=8)),
        "aux.rotation.weight=1.0, this one has None": replace(first, aux={}),
        "env.num_envs=4, this one has 2": replace(first, env=ToyConfig(num_envs=2)),
    }.items():
        with pytest.raises(ValueError, match=f"holds a run with {key}"), claim_run_dir(other):
            pass
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_config_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, text: str) -> None:
        path.touch()
        raise OSError("full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="full"):
        write_config(config(), tmp_path / "config.yaml")
    assert not list(tmp_path.iterdir())


BROKEN = ["", "gamma: 0.9", "[", "env: {gmae: pong}", "env: {game: pong}\nlr: 1", "env: 3"]


@pytest.mark.parametrize("text", [*BROKEN, pytest.param("[" * 100_000, id="deep")])
def test_a_file_that_is_no_config_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        read_config(path, Config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"steps_per_update": 0}, {"batch_size": 0}, {"gamma": 1.5}, {"gamma": math.nan}]
    + [{name: -1} for name in ("seed", "threads", "learning_starts", "log_every", "eval_episodes")],
)
def test_values_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="{}={}: must be".format(*next(iter(wrong.items())))):
        config(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"hidden": 0}, {"target_every": 0}, {"epsilon_steps": 0}, {"target_tau": 5}, {"final_learning_rate": -1}]
    + [{name: -1} for name in ("learning_rate", "max_grad_norm", "adam_eps", "random_shift", "encoder_scale")],
)
def test_values_of_the_agent_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="agent.{}={}: must be".format(*next(iter(wrong.items())))):
        DQNConfig(**wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("aux=rotation aux.rotation.weight=-1", r"^aux\.rotation\.weight=-1\.0: must be at least 0$"),
        ("aux=rotation aux.rotation.final_weight=-1", r"^aux\.rotation\.final_weight=-1\.0: must be"),
        ("encoder.feature_dim=-5", r"^encoder\.feature_dim=-5: must be at least 1$"),
        ("env.noop_max=-1", "^noop_max is -1: it must be at least 0$"),
        ("learning_starts=0", "^learning_starts=0: must be at least 32, replay.n_step"),
    ],
)
def test_values_of_the_parts_out_of_range_are_named(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        composed(*words.split())


@pytest.mark.parametrize("wrong", [{"gamma": 0}, {"learning_rate": -1}, {"max_grad_norm": 0}])
def test_values_of_a_pretraining_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="{}={}: must be above 0".format(*next(iter(wrong.items())))):
        PretrainConfig(IdxConfig(), ToyConfig(), EncoderConfig(), {"rotation": TaskConfig()}, **wrong)


def test_learning_may_start_when_a_window_is_full() -> None:
    assert config(learning_starts=12, steps_per_update=1).learning_starts == 12  # at step 16: four of each
    with pytest.raises(ValueError, match="must be at least 16"):
        config(learning_starts=11, steps_per_update=1)  # at 12
