import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs import AtariConfig, DmcConfig, EnvConfig, PointMassConfig, SingleEnv, ToyConfig


def toy(**config: int) -> SingleEnv:
    return SingleEnv(ToyConfig(num_envs=1, **config).build(), frame_stack=3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "config",
    [ToyConfig(num_envs=1), AtariConfig(game="breakout", num_envs=1), PointMassConfig(num_envs=1), DmcConfig()],
    ids=lambda config: type(config).__name__,
)
def test_stable_baselines_accepts_it(config: EnvConfig) -> None:
    env = SingleEnv(config.build())
    sb3_check_env(env)
    env.close()


@pytest.mark.filterwarnings("ignore:.*spec:UserWarning", "ignore:.*not the unwrapped:UserWarning")
@pytest.mark.parametrize(
    "config",
    [ToyConfig(num_envs=1), PointMassConfig(num_envs=1), DmcConfig()],
    ids=lambda config: type(config).__name__,
)
def test_gymnasium_accepts_it(config: EnvConfig) -> None:
    env = SingleEnv(config.build())
    gymnasium_check_env(env, skip_render_check=True)


def episode(env: SingleEnv, seed: int | None) -> list[np.ndarray]:
    obs, _ = env.reset(seed=seed)
    seen, ended = [obs], False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(env.action_space.n - 1)
        seen.append(obs)
        ended = terminated or truncated
        assert (reward != 0) == terminated
    return seen


def test_episodes_are_stacked_and_follow_from_the_seed() -> None:
    env = toy()
    first, second, third = episode(env, 5), episode(env, None), episode(env, None)
    assert len(first) == 12
    for start in (first[0], second[0]):
        assert not start[:2].any()
        assert start[2].any()
    np.testing.assert_array_equal(first[2], np.stack([first[0][2], first[1][2], first[2][2]]))
    np.testing.assert_array_equal(first, episode(env, 5))
    np.testing.assert_array_equal(second, episode(env, None))
    assert not np.array_equal(np.stack(second), np.stack(third))
    env.reset(seed=5)
    env.step(0)
    assert not env.reset()[0][:2].any()  # in the middle of an episode


def test_truncation_is_not_termination() -> None:
    env = toy(time_limit=2)
    env.reset(seed=0)
    assert env.step(1)[2:4] == (False, False)
    assert env.step(1)[2:4] == (False, True)


def test_a_lost_life_does_not_end_the_episode() -> None:
    vector = AtariConfig(game="breakout", num_envs=1).build()
    env = SingleEnv(vector)
    env.reset(seed=0)
    actions, steps = np.random.default_rng(0), 0
    while not env.step(actions.integers(4))[2]:
        steps += 1
    assert steps > 100  # a life lasts some 35 random steps
    assert vector.step(np.array([0])).first[0]


def test_stepping_outside_an_episode_is_an_error() -> None:
    env = toy()
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)
    episode(env, 0)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)
    env.reset()
    env.step(0)


def test_one_copy_only() -> None:
    with pytest.raises(ValueError, match="num_envs=1"):
        SingleEnv(ToyConfig(num_envs=2).build())


def test_continuous_episodes_follow_each_other() -> None:
    env = SingleEnv(PointMassConfig(num_envs=1, time_limit=2).build())
    start, _ = env.reset(seed=1)
    env.step(env.action_space.sample())
    assert env.step(env.action_space.sample())[2:4] == (False, True)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(env.action_space.sample())
    again, _ = env.reset()
    assert again[-1].any()
    assert not again[:-1].any()
    assert not np.array_equal(again, start)
