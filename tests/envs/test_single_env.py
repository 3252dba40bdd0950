import numpy as np
import pytest
from env_help import built
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from envs import (
    ENVS,
    AtariConfig,
    BitFlipConfig,
    EnvConfig,
    PointMassConfig,
    PusherConfig,
    SingleEnv,
    SingleGoalEnv,
    ToyConfig,
)

GOALS: dict[str, EnvConfig] = {
    "pixels": PusherConfig(num_envs=1),
    "state": PusherConfig(num_envs=1, observe="state"),
    "bits": BitFlipConfig(num_envs=1),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ENVS)
def test_stable_baselines_accepts_it(name: str) -> None:
    env = SingleEnv(built(name, 1))
    sb3_check_env(env)
    env.close()


@pytest.mark.filterwarnings("ignore:.*spec:UserWarning", "ignore:.*not the unwrapped:UserWarning")
@pytest.mark.parametrize("name", ["toy", "pointmass", "dmc", "pusher"])
def test_gymnasium_accepts_it(name: str) -> None:
    gymnasium_check_env(SingleEnv(built(name, 1)), skip_render_check=True)


def episode(env: SingleEnv, seed: int | None) -> list[np.ndarray]:
    seen, ended = [env.reset(seed=seed)[0]], False
    while not ended:
        obs, reward, ended, truncated, _ = env.step(env.action_space.n - 1)
        seen.append(obs)
        assert not truncated
        assert (reward != 0) == ended
    return seen


def test_episodes_are_stacked_and_follow_from_the_seed() -> None:
    env = SingleEnv(ToyConfig(num_envs=1).build(), frame_stack=3)
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


def test_a_lost_life_does_not_end_the_episode() -> None:
    vector = AtariConfig(game="breakout", num_envs=1).build()
    env, actions, steps = SingleEnv(vector), np.random.default_rng(0), 0
    env.reset(seed=0)
    while not env.step(actions.integers(4))[2]:
        steps += 1
    assert steps > 100  # a life lasts some 35 random steps
    assert vector.step(np.array([0])).first[0]


@pytest.mark.parametrize("kind", [ToyConfig, PointMassConfig])
def test_an_episode_is_begun_ended_and_begun_again(kind: type[ToyConfig | PointMassConfig]) -> None:
    with pytest.raises(ValueError, match="num_envs=1"):
        SingleEnv(kind(num_envs=2).build())
    env = SingleEnv(kind(num_envs=1, time_limit=2).build())
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(env.action_space.sample())
    start, _ = env.reset(seed=1)
    assert env.step(env.action_space.sample())[2:4] == (False, False)
    assert env.step(env.action_space.sample())[2:4] == (False, True)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(env.action_space.sample())
    again, _ = env.reset()
    assert again[-1].any()
    assert not again[:-1].any()
    assert not np.array_equal(again, start)
    env.step(env.action_space.sample())


# --- goals ---


@pytest.mark.filterwarnings("error", "ignore:.*(spec|not the unwrapped|infinity):UserWarning")
@pytest.mark.parametrize("config", GOALS.values(), ids=GOALS)
def test_an_environment_with_goals_passes_both_checks(config: EnvConfig) -> None:
    sb3_check_env(SingleGoalEnv(config.build()))
    gymnasium_check_env(SingleGoalEnv(config.build()), skip_render_check=True)


@pytest.mark.parametrize("config", GOALS.values(), ids=GOALS)
def test_rewards_of_a_batch_are_those_of_the_steps(config: EnvConfig) -> None:
    env = SingleGoalEnv(config.build())
    obs, info = env.reset(seed=0)
    steps, over = [], False
    env.action_space.seed(0)
    while not over:
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        goals = (obs["achieved_goal"], obs["desired_goal"])
        assert env.compute_reward(*goals, info) == reward
        assert env.compute_terminated(*goals, info) == terminated
        assert isinstance(info["is_success"], bool)
        steps.append((*goals, reward))
        over = terminated or truncated
    achieved, desired, rewards = map(np.array, zip(*steps, strict=True))
    np.testing.assert_array_equal(env.compute_reward(achieved, desired, {}), rewards)
    assert len(env.compute_terminated(achieved, desired, {})) == len(steps)
    assert not env.compute_truncated(achieved, desired, {}).any()
    assert (desired == desired[0]).all()
    again, _ = env.reset()
    assert not np.array_equal(again["desired_goal"], desired[0])


def test_no_goals_no_goal_environment() -> None:
    with pytest.raises(ValueError, match="ToyVector has none"):
        SingleGoalEnv(ToyConfig(num_envs=1).build())


def test_hindsight_replay_of_stable_baselines_relabels_it() -> None:
    from stable_baselines3 import SAC, HerReplayBuffer

    env = SingleGoalEnv(GOALS["state"].build())
    learner = SAC("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, learning_starts=100, device="cpu")
    learner.learn(130)
    batch = learner.replay_buffer.sample(256)
    achieved, desired = (batch.next_observations[f"{name}_goal"].numpy() for name in ("achieved", "desired"))
    np.testing.assert_array_equal(env.compute_reward(achieved, desired, {}), batch.rewards[:, 0].numpy())
    assert (batch.rewards == 0).any()
