"""Command lines that are a little wrong."""

import random
from typing import Any

from chaos_help import Program
from omegaconf import OmegaConf

from configs.schema import flatten
from experiment.command_line.overrides import compose_words

SHORT = {  # a run that is over soon
    "train": ["steps=18", "checkpoint_every=0", "eval_episodes=0"],
    "pretrain": ["steps=2"],
    "evaluate": ["episodes=2", "video=null"],
    "probe": ["seeds=1"],
    "compare": [],
}
NAMES = {"train": "config"}  # of the configs, where it is not that of the command
ENDLESS = {"steps", "episodes", "eval_episodes", "eval_every_episodes", "time_limit", "length", "run_dir"}
HUGE = {"capacity", "feature_dim", "hidden", "batch_size", "num_envs"}  # memory that nobody has
GROUPS = [
    "env=pointmass",
    "env=toy",
    "agent=sac",
    "agent=dqn",
    "encoder=vit",
    "encoder=small",
    "aux=none",
    "aux=[moco,spr]",
]


def words(program: Program, rng: random.Random) -> list[str]:
    """One to three words that change a valid key, its value or its spelling."""
    config = compose_words(NAMES.get(program.command, program.command), *program.words).config
    values = {key: value for key, value in flatten(OmegaConf.to_container(config)).items() if key}
    changes = [_word(key, values[key], rng) for key in rng.sample(sorted(values), rng.randint(1, 3))]
    return [*SHORT[program.command], *changes]


def _word(key: str, value: Any, rng: random.Random) -> str:
    if rng.random() < 0.1:
        return rng.choice(GROUPS)
    if rng.random() < 0.1:
        at = rng.randrange(len(key))
        return f"{key[:at]}{key[at + 1 :]}={value}"
    return f"{key}={rng.choice(_others(key, value))}"


def _others(key: str, value: Any) -> list[Any]:
    name = key.rpartition(".")[2]
    if name in ENDLESS and isinstance(value, int | str):
        return [0, 1, -1, "x", "null", "1.5", "[1]"] if isinstance(value, int) else ["", "x", "a b"]
    common = ["null", "x", "", "[]", "[1,2]", "{}", "'", "${seed}", "${oc.env:HOME}", "true", "nan"]
    match value:
        case bool():
            return [*common, "false", 2, -1]
        case int():
            return [*common, 0, 1, -1, value + 1, 2 * value, 1.5, "1e3", *([10**9, 10**20] if name in HUGE else [])]
        case float():
            return [*common, 0, -1, 2 * value, value / 2, "inf", "-inf", "1e-30", "1e30"]
        case str():
            return [*common, f"{value}x", value.upper(), "../x", "é"]
        case _:
            return [*common, 0, 1, -1, "0.5"]
