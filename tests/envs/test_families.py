"""What every environment family promises, whatever it shows."""

import multiprocessing
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from env_help import built, play
from gymnasium.spaces import Discrete

from envs import (
    ENVS,
    AtariConfig,
    BitFlipConfig,
    DmcConfig,
    EnvConfig,
    GraspingConfig,
    GymGoalConfig,
    PointMassConfig,
    PusherConfig,
    ToyConfig,
)

# A configuration, what may differ without changing an episode, and the agent steps to compare.
CASES: dict[str, tuple[EnvConfig, dict[str, int], int]] = {
    "toy": (ToyConfig(num_envs=3), {}, 60),
    "time limit": (ToyConfig(num_envs=3, time_limit=4), {}, 20),
    "point mass": (PointMassConfig(num_envs=3, time_limit=9, control="force"), {}, 25),
    "noise": (PointMassConfig(num_envs=3, time_limit=9, noise=True), {}, 25),
    "bit flipping": (BitFlipConfig(num_envs=3, bits=4), {}, 40),
    "atari": (AtariConfig(game="breakout", num_envs=3, sticky=0.25), {"threads": 2}, 100),
    "pusher": (PusherConfig(num_envs=3, time_limit=9, background="gas"), {}, 25),
    "gas": (DmcConfig(domain="ball_in_cup", task="catch", num_envs=3, action_repeat=500, background="gas"), {}, 4),
    "background noise": (DmcConfig(num_envs=3, action_repeat=500, background="noise"), {"processes": 2}, 4),
    "fish": (DmcConfig(domain="fish", task="swim", num_envs=3, action_repeat=500), {}, 4),
    "grasping": (GraspingConfig(num_envs=3), {}, 9),
    "hard": (DmcConfig(domain="point_mass", task="hard", num_envs=3, action_repeat=500), {}, 4),
}


@pytest.mark.parametrize(("config", "free", "steps"), CASES.values(), ids=CASES)
def test_one_seed_one_future_for_each_copy(config: EnvConfig, free: dict[str, int], steps: int) -> None:
    env, fewer = config.build(), replace(config, num_envs=2, **free).build()
    expected = play(env, 11, steps)
    other = play(env, 12, steps)
    play(env, 12, steps // 3)  # ends in the middle of an episode
    for row, again, less in zip(expected, play(env, np.int64(11), steps), play(fewer, 11, steps), strict=True):
        for name, values in vars(row).items():
            np.testing.assert_array_equal(getattr(again, name), values, err_msg=name)
            np.testing.assert_array_equal(getattr(less, name), values[:2], err_msg=name)
    histories = {b"".join(row.frame[i].tobytes() for row in run) for run in (expected, other) for i in range(3)}
    assert len(histories) == 6
    env.close()
    fewer.close()
    env.close()


@pytest.mark.parametrize(("config", "free", "steps"), CASES.values(), ids=CASES)
def test_flags_follow_each_other(config: EnvConfig, free: dict[str, int], steps: int) -> None:
    env = replace(config, **free).build()
    size = getattr(config, "size", 1)  # of states
    assert (env.num_envs, env.frame_shape[1:]) == (3, (size, size))
    over = np.zeros(3, bool)
    starts, ended = [], False
    for row in play(env, 11, steps):
        assert (row.frame.dtype, row.frame.shape) == (env.frame_dtype, (3, *env.frame_shape))
        if not hasattr(row, "first"):
            starts += list(row.frame)
            continue
        np.testing.assert_array_equal(row.first, over)
        assert not (row.terminated & row.truncated).any()
        assert not (row.truncated & ~row.game_over).any()
        assert not row.reward[row.first].any()
        assert row.reward.dtype == np.float32
        starts += list(row.frame[row.first])
        over = row.game_over
        ended |= over.any()
    if ended:
        assert len({start.tobytes() for start in starts}) > 3
    env.close()


@pytest.mark.parametrize(
    ("config", "flag", "ends"),
    [
        (ToyConfig(num_envs=3), "terminated", [10, 22, 34]),
        (ToyConfig(num_envs=3, time_limit=11), "terminated", [10]),  # the ball lands as the time is over
        (ToyConfig(num_envs=3, balls=4), "terminated", [46, 94]),  # 4 * 12 - 1 steps
        (ToyConfig(num_envs=3, time_limit=4), "truncated", [3, 8, 13]),
        (PointMassConfig(num_envs=3, time_limit=1), "truncated", [0, 2]),
        (PointMassConfig(num_envs=3, time_limit=50), "truncated", [49, 100]),
        (PusherConfig(num_envs=3, observe="state"), "truncated", [49, 100]),
        (AtariConfig(num_envs=3, max_frames=42, noop_max=0, fire_reset=False), "truncated", [10, 22]),
        (DmcConfig(num_envs=3, action_repeat=300), "truncated", [3, 8]),  # of 300, 300, 300 and 100 control steps
    ],
)
def test_episodes_end_when_they_should(config: EnvConfig, flag: str, ends: list[int]) -> None:
    env, none = config.build(), np.zeros(3, bool)
    for t, row in enumerate(play(env, 0, ends[-1] + 1)[1:]):
        for name in ("terminated", "truncated", "game_over", "first"):
            expected = t in ends if name in (flag, "game_over") else name == "first" and t - 1 in ends
            np.testing.assert_array_equal(getattr(row, name), none | expected, err_msg=f"{name} at step {t}")
        if isinstance(config, ToyConfig):
            np.testing.assert_array_equal(row.reward != 0, none | (flag == "terminated" and t % 12 == 10))
        elif not isinstance(config, AtariConfig):
            np.testing.assert_array_equal(row.reward == 0, row.first)
    env.reset(0)  # at an end: what follows is no step of a reset
    assert not play(env, 0, 1)[1].first.any()
    env.close()


@pytest.mark.parametrize("name", ENVS)
@pytest.mark.timeout(10)
def test_bad_actions_are_refused_at_once(name: str) -> None:
    env = built(name, 2)
    if isinstance(env.action_space, Discrete):
        good, n = np.zeros(2, np.int64), env.action_space.n
        bad = [np.array([0, n]), np.array([-1, 0]), np.zeros(3, np.int64), np.zeros(2)]
    else:
        good = np.zeros((2, *env.action_space.shape), np.float32)
        bad = [good + 1.01, good + np.nan, good.astype(int), np.zeros((2, 7)), np.zeros(2)]
    env.reset(0)
    for action in bad:
        with pytest.raises(ValueError, match=r"^action"):
            env.step(action)
    env.step(good)
    env.close()


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("atari", {"game": "Breakuot"}, "unknown Atari game 'Breakuot': did you mean 'breakout'?"),
        ("atari", {"game": "MsPacman"}, "unknown Atari game 'MsPacman': did you mean 'ms_pacman'?"),
        ("atari", {"game": "warlords"}, "env.game=warlords needs two players"),
        ("atari", {"game": "q"}, "unknown Atari game 'q': there are adventure, air_raid, alien, "),
        ("atari", {"num_envs": 0}, "env.num_envs must be at least 1, got 0"),
        ("atari", {"threads": 0}, "env.threads must be at least 1, got 0"),
        ("atari", {"sticky": 1.5}, "env.sticky must be in [0, 1), got 1.5"),
        ("dmc", {"quality": "fst"}, "env.quality must be one of fast, full, got 'fst': did you mean 'fast'?"),
        ("dmc", {"background": "vidoe"}, "env.background must be one of "),
        ("dmc", {"background": "video", "background_folder": "no"}, "background_folder=no is not a folder"),
        ("dmc", {"background_split": "test"}, "env.background_split must be one of train, eval, got 'test'"),
        ("dmc", {"num_envs": 0}, "env.num_envs must be at least 1, got 0"),
        ("dmc", {"processes": -1}, "env.processes must be at least 0, got -1"),
        (
            "dmc",
            {"domain": "cartpol", "action_repeat": 1},
            "unknown dm_control domain 'cartpol': did you mean 'cart",
        ),
        ("dmc", {"domain": "lqr", "action_repeat": 1}, "domain lqr is left out"),
        ("dmc", {"domain": "hopper", "task": "hop"}, "PlaNet has no action repeat for 'hopper', only for "),
        ("dmc", {"task": "swing_up"}, "unknown task 'swing_up' of cartpole: did you mean 'swingup'?"),
        ("dmc", {"task": "swing", "num_envs": 2, "processes": 2}, "unknown task 'swing' of cartpole: did you mean"),
        ("dmc", {"camera": "fixd"}, "unknown camera 'fixd': did you mean 'fixed'?"),
        ("pointmass", {"control": "torque"}, "env.control must be one of velocity, force, got 'torque'"),
        ("pointmass", {"observe": "stat"}, "env.observe must be one of pixels, state"),
        ("pointmass", {"observe": "state", "views": ["turned"]}, "env.views are pictures: leave them out"),
        ("pusher", {"observe": "pixel"}, "env.observe must be one of "),
        ("pusher", {"reward": "spase"}, "env.reward must be one of "),
        ("pusher", {"objects": "two"}, "env.objects must be one of one, many, got 'two'"),
        ("pusher", {"camera": "side"}, "unknown camera 'side': there are top, oblique, or azimuth/elevation"),
        ("pusher", {"background": "gass"}, "env.background must be one of "),
        ("pusher", {"time_limit": 0}, "env.time_limit must be at least 1, got 0"),
        ("pointmass", {"size": 11}, "env.size must be at least 12, got 11"),
        ("pointmass", {"time_limit": 0}, "env.time_limit must be at least 1, got 0"),
        ("deep_sea", {"cells": 5}, "env.size=36: must be a multiple of env.cells=5"),
        ("deep_sea", {"cells": 1}, "env.cells must be at least 2, got 1"),
        ("deep_sea", {"num_envs": 0}, "env.num_envs must be at least 1, got 0"),
        ("toy", {"size": 40}, "env.size=40: must be a multiple of 12"),
        *(("toy", {key: 0}, f"env.{key} must be at least 1, got 0") for key in ("balls", "time_limit", "num_envs")),
    ],
)
def test_what_cannot_be_is_named(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
        ENVS[name](**wrong).build()
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []


def test_what_a_family_says_of_itself() -> None:
    walker = DmcConfig(domain="walker", task="walk", background="gas")
    configs: list[EnvConfig] = [AtariConfig(game="breakout"), walker, replace(walker, repeat_first=False), ToyConfig()]
    assert [(config.name, config.label, config.fps, config.padding) for config in configs] == [
        ("atari", "breakout", 15, "zeros"),
        *(("dmc", "walker_walk_gas", 25, padding) for padding in ("repeat", "zeros")),
        ("toy", "toy", 6, "zeros"),
    ]
    pusher = PusherConfig(objects="many", background="gas")
    assert [c.label for c in (PusherConfig(), pusher, pusher.display(84))] == ["pusher", *["pusher_many_gas"] * 2]
    assert GymGoalConfig(id="ogbench:cube-single-v0").label == "cube-single-v0"
    assert [DmcConfig(domain=domain).repeat for domain in ("cartpole", "walker", "cheetah")] == [8, 2, 4]  # PlaNet's
    assert DmcConfig(domain="walker", action_repeat=5).repeat == 5
    assert {name: kind().name for name, kind in ENVS.items()} == {name: name for name in ENVS}
