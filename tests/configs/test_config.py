"""Every config composes by its name, freezes, and survives a file; what is wrong is named."""

import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

import configs
from agents import AGENTS, DQNConfig
from agents.base import Precision
from agents.peers import PEERS
from aux_tasks import TASKS, TaskConfig, TaskSetting
from aux_tasks.image.rotation import Rotation
from configs.schema import Config, PretrainConfig, ProbeConfig, flat
from configs.sources import SOURCES, IdxConfig
from encoders import ENCODERS, EncoderConfig
from envs import ENVS, AtariConfig, ToyConfig
from experiment.command_line.composition import _task_node, complete, freeze, read_config, register, write_config
from experiment.command_line.overrides import compose_words
from experiment.training.build import build
from replay import ReplayConfig

CONFIGS = Path(configs.__path__[0])
GROUPS = {
    "env": ENVS,
    "agent": {**AGENTS, **PEERS},
    "encoder": ENCODERS,
    "aux": [*TASKS, "none"],
    "replay": ["uniform"],
}
CHOICES = [f"{group}={name}" for group, names in GROUPS.items() for name in names]
CHOICES += [f"{path.parent.name}={path.stem}" for path in sorted(CONFIGS.glob("*/*.yaml"))]


def composed(*words: str, kind: Any = Config, name: str = "config") -> Any:
    return freeze(compose_words(name, *words).config, kind)


def pretraining(*words: str) -> PretrainConfig:
    return composed(*words, kind=PretrainConfig, name="pretrain")


def config(**changes: Any) -> Config:
    return replace(Config(ToyConfig(), DQNConfig(), EncoderConfig(), ReplayConfig()), **changes)


@pytest.mark.parametrize("choice", dict.fromkeys(CHOICES))
def test_every_choice_composes_under_its_name_and_survives_a_file(choice: str, tmp_path: Path) -> None:
    group, _, name = choice.partition("=")
    alone = group == "experiment" and name.startswith("pretrain_")
    made, kind = (pretraining(choice, "aux=rotation"), PretrainConfig) if alone else (composed(choice), Config)
    write_config(made, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml", kind) == made
    if group in ("env", "agent", "encoder"):
        assert getattr(made, group).name == name
    if group in ("env", "agent"):
        assert getattr(made, group) == GROUPS[group][name]()
    if group == "aux" and name in TASKS:
        assert complete(config(aux={name: TaskConfig(TASKS[name].default_weight)})).aux == made.aux


def test_two_families_with_the_same_keys_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Twin(ToyConfig):
        name: str = "twin"

    register()
    store = ConfigStore.instance()
    monkeypatch.setitem(store.repo, "env", {**store.repo["env"]})  # other tests list the choices
    monkeypatch.setitem(ENVS, "twin", Twin)
    for name, kind in (("twin", Twin), ("toy", ToyConfig)):
        made = composed(f"env={name}", "env.balls=2")
        assert made.env == kind(balls=2)
        assert type(made.env) is kind
        write_config(made, tmp_path / "config.yaml")
        assert type(read_config(tmp_path / "config.yaml", Config).env) is kind


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_is_composed_under_its_name(name: str) -> None:
    words = [f"source.{key}=x" for key in ("run", "folder") if key in {f.name for f in fields(SOURCES[name])}]
    made = pretraining("aux=rotation", f"source={name}", *words).source
    assert type(made) is SOURCES[name]
    assert made.name == name


def test_an_empty_command_line_gives_the_defaults_of_the_dataclasses() -> None:
    assert composed() == Config(AtariConfig(), DQNConfig(), EncoderConfig(), ReplayConfig())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("aux=rotation aux.rotation.options.hidden=wide", "aux.rotation.options.hidden"),
        ("aux=rotation aux.rotation.options.all_rotations=3.5", "aux.rotation.options.all_rotations"),
        ("aux=permutation aux.permutation.options.crop_rows=[1,x]", "crop_rows"),
    ],
)
def test_the_options_of_a_task_have_the_types_of_its_constructor(words: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        composed(*words.split())


class Positional(Rotation):
    def __init__(self, setting: TaskSetting, all_rotations: bool = True, depth: int = 3, *, width: int = 2) -> None:
        super().__init__(setting, all_rotations=all_rotations)


class NoDefault(Rotation):
    def __init__(self, setting: TaskSetting, *, depth: int) -> None:
        super().__init__(setting)


class NoType(Rotation):
    def __init__(self, setting: TaskSetting, depth=3) -> None:  # type: ignore[no-untyped-def]
        super().__init__(setting)


class WrongType(Rotation):
    def __init__(self, setting: TaskSetting, depth: Rotation | None = None) -> None:
        super().__init__(setting)


def test_an_option_may_be_positional_and_needs_a_type_and_a_default() -> None:
    options = _task_node(Positional)().options
    assert (options.all_rotations, options.depth, options.width, options.hidden) == (True, 3, 2, 256)
    for task, message in {NoDefault: "'depth'", NoType: "'depth'", WrongType: "option"}.items():
        with pytest.raises(ValueError, match=f"^{task.__name__}: .*{message}"):
            _task_node(task)


def test_a_config_is_frozen_to_the_leaves() -> None:
    made = composed("aux=[rotation,permutation]", "aux.rotation.weight=0.5", "agent.target=hard", "env=toy")
    assert flat(made)["aux.rotation.weight"] == 0.5
    assert list(made.aux) == ["rotation", "permutation"]
    for node in (made, made.env, made.agent, made.aux["rotation"]):
        with pytest.raises(AttributeError):
            setattr(node, fields(node)[0].name, None)


def test_a_pretraining_needs_something_to_learn() -> None:
    assert pretraining("aux=rotation", "env=toy").env == ToyConfig()
    with pytest.raises(ValueError, match="nothing to learn: give aux=rotation"):
        pretraining()


def test_a_probe_leaves_the_source_to_the_run() -> None:
    def probing(*words: str) -> ProbeConfig:
        return composed("checkpoint=zoo/x", *words, kind=ProbeConfig, name="probe")

    assert probing() == ProbeConfig("zoo/x", {})
    made = probing("source=idx", "source.folder=data/y", "env=toy", "env.size=48", "labels=[digit]")
    assert (made.source, made.env, made.labels) == (IdxConfig("data/y"), ToyConfig(size=48), ["digit"])
    assert list(probing("mode=joint", "aux=rotation").aux) == ["rotation"]
    with pytest.raises(ValueError, match="checkpoint"):
        composed(kind=ProbeConfig, name="probe")


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
    assert (list(best.aux), best.agent.num_shifts, best.env) == (["deepmdp"], 2, plain.env)
    gas = composed("experiment=gas_cartpole")
    assert gas.steps * gas.replay_ratio == best.steps
    assert replace(gas.env, num_envs=1) == replace(plain.env, background="gas", background_speed=1, films=5)
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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("agent=sac", "replay.synthetic makes features, which must not change: encoder=state, or agent.enc"),
        ("agent=dqn", "replay.synthetic is for continuous actions, not for agent=dqn: agent=sac"),
        ("agent=sac encoder=state aux=curl", "aux=curl: replay.synthetic freezes the encoder"),
        ("agent=sac agent.encoder_scale=0 agent.random_shift=4", "agent.random_shift changes pixels"),
        ("agent=sac agent.encoder_scale=0 agent.svea=overlay", "agent.svea changes pixels"),
        ("agent=sac encoder=state env=pusher env.observe=state", "replay.synthetic .* goals, but env=pusher has goals"),
    ],
)
def test_synthetic_transitions_need_features_that_stay(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as error:
        build(composed("replay=synthetic", *words.split(), "frame_stack=1", "device=cpu"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("precision", Precision)
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_bfloat16_is_told_where_a_cpu_is_slow_at_it(
    precision: Precision, capability: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.process.get_cpu_capability", lambda: capability)
    build(config(device="cpu", agent=DQNConfig(precision=precision)))
    assert ("AVX-512" in caplog.text) is ((precision, capability) == (Precision.bfloat16, "AVX2"))


def test_a_device_of_no_such_kind_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"device must be one of auto, cpu, cuda, got 'cpuu': did you mean 'cpu'\?$"):
        build(config(device="cpuu"))


def test_the_backgrounds_of_evaluation_are_refused_in_training() -> None:
    with pytest.raises(ValueError, match=r"^env\.background_split=eval is for evaluation: leave it out"):
        build(composed("experiment=sac_cartpole", "env.background=gas", "env.background_split=eval", "device=cpu"))


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


def test_a_pretraining_is_no_training(tmp_path: Path) -> None:
    write_config(
        freeze(compose_words("pretrain", "source=balls", "aux=rotation").config, PretrainConfig),
        tmp_path / "config.yaml",
    )
    with pytest.raises(ValueError, match=r"is of a pretraining, not of an agent: give the folder of a training"):
        read_config(tmp_path / "config.yaml", Config)


@pytest.mark.parametrize(
    "text",
    ["clip_reward: 2", "env: {name: atari, grayscale: 'yes'}", "aux: {rotation: {options: {all_rotations: 1}}}"],
)
def test_a_file_says_true_or_false(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="must be true or false"):
        read_config(path, Config)


PARTS = {
    "env: {name: mine}": "env 'mine'",
    "agent: {name: mine}": "agent 'mine'",
    "encoder: {name: mine}": "encoder 'mine'",
    "aux: {mine: {}}": "aux 'mine'",
    "source: {name: mine}": "source 'mine'",
}


@pytest.mark.parametrize(
    ("imports", "words"),
    [
        ("", "my_module"),
        ("imports: [tests_own.tasks, other]", "tests_own.tasks,other"),
        ("imports: ['x y; z', 3-4]", "my_module"),
    ],
)
@pytest.mark.parametrize("text", PARTS)
def test_a_part_of_another_module_is_named_and_the_module_never_imported(
    text: str, imports: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(f"{text}\n{imports}")
    with pytest.raises(ValueError, match=re.escape(f"{path} needs {PARTS[text]}: give import={words},")):
        read_config(path, PretrainConfig if "source" in text else Config)


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 0}, {"replay_ratio": 0}, {"batch_size": 0}, {"gamma": 1.5}, {"gamma": math.nan}]
    + [{name: -1} for name in ("seed", "threads", "learning_starts", "log_every", "eval_episodes")],
)
def test_values_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="^{} must be .*, got {}$".format(*next(iter(wrong.items())))):
        config(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [{"hidden": 0}, {"target_every": 0}, {"epsilon_steps": 0}, {"target_tau": 5}, {"final_learning_rate": -1}]
    + [{name: -1} for name in ("learning_rate", "max_grad_norm", "adam_eps", "random_shift", "encoder_scale")],
)
def test_values_of_the_agent_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="^agent.{} must be .*, got {}$".format(*next(iter(wrong.items())))):
        DQNConfig(**wrong)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("aux=rotation aux.rotation.weight=-1", r"^aux\.rotation\.weight must be at least 0, got -1\.0$"),
        ("aux=rotation aux.rotation.final_weight=-1", r"^aux\.rotation\.final_weight must be at least 0, got -1\.0$"),
        ("aux=rotation aux.rotation.bonus_weight=-1", r"^aux\.rotation\.bonus_weight must be at least 0, got -1\.0$"),
        ("aux=spr aux.spr.bonus_weight=1", r"^aux\.spr\.bonus_weight: bonuses are of one step, .* replay\.n_step=1"),
        ("encoder.feature_dim=-5", r"^encoder\.feature_dim must be at least 1, got -5$"),
        ("env.noop_max=-1", r"^env\.noop_max must be at least 0, got -1$"),
        ("milestones=[[0,100],[15]]", r"^milestones=\[\[0, 100\], \[15\]\]: must be pairs"),
        ("learning_starts=0", "^learning_starts=0: must be at least 32, replay.n_step"),
        *(
            (f"replay=lap {agent}", r"^replay\.lap=true needs a Huber loss: agent=dqn agent\.head=plain or spatial")
            for agent in ("agent=sac env=pointmass", "agent.head=quantile", "agent.head=implicit")
        ),
        ("replay=lap agent=sb3_dqn", r"^replay\.\w+=\w+ does not apply to agent=sb3_dqn"),
    ],
)
def test_values_of_the_parts_out_of_range_are_named(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        composed(*words.split())


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [({"gamma": 0}, r"in \(0, 1\]"), ({"learning_rate": -1}, "above 0"), ({"max_grad_norm": 0}, "above 0")],
)
def test_values_of_a_pretraining_out_of_range_are_named(wrong: dict[str, Any], allowed: str) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^{name} must be {allowed}, got {value}$"):
        PretrainConfig(IdxConfig(), ToyConfig(), EncoderConfig(), {"rotation": TaskConfig()}, **wrong)


def test_learning_may_start_when_a_window_is_full() -> None:
    assert config(learning_starts=12, replay_ratio=1).learning_starts == 12  # at step 16: four of each
    with pytest.raises(ValueError, match="must be at least 16"):
        config(learning_starts=11, replay_ratio=1)  # at 12
