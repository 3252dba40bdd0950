from dataclasses import replace

import numpy as np
import pytest
from env_help import play

from envs import PusherConfig, PusherVector
from envs.pusher import POINTER_RANGE, PUCK_RANGE, THRESHOLD, TOUCH, scripted_action

pytest.importorskip("dm_control")

STATE = PusherConfig(num_envs=64, observe="state")
CORNERS = np.array([[x, y] for x in (-PUCK_RANGE, 0, PUCK_RANGE) for y in (-PUCK_RANGE, 0, PUCK_RANGE)])


def positions(env: PusherVector) -> np.ndarray:
    return np.stack([env.labels()[name] for name in ("puck_x", "puck_y", "pointer_x", "pointer_y")], axis=1)


def follow_script(env: PusherVector) -> np.ndarray:
    """Positions (steps, N, 4) of an episode of the scripted pusher, up to its end."""
    seen = [positions(env)]
    for _ in range(env._config.time_limit):
        step = env.step(scripted_action(seen[-1], env.goals().desired))
        seen.append(positions(env))
    assert step.game_over.all()
    return np.stack(seen)


def test_a_scripted_pusher_reaches_every_goal_from_everywhere() -> None:
    env = STATE.build()
    env.reset(0)
    for start in [env.goals().achieved, *CORNERS]:  # a corner is the worst position of a puck
        for data in env._copies:
            data.qpos[:2] = start if start.ndim == 1 else data.qpos[:2]
            data.qpos[2:] = -data.qpos[:2] + 0.3 * (data.qpos[:2] == 0)
            data.qvel[:] = 0
        seen = follow_script(env)
        assert (np.abs(seen) < [*[PUCK_RANGE + 0.02] * 2, *[POINTER_RANGE + 0.02] * 2]).all()
        assert np.linalg.norm(seen[..., :2] - seen[..., 2:], axis=-1)[1:].min() > TOUCH - 0.03
        assert env.is_success(*env.goals()).all()
        env.step(np.zeros((64, 2), np.float32))


def test_random_actions_move_the_puck_and_none_leave_it() -> None:
    moved, solved = {}, {}
    for name, scale in {"random": 1, "none": 0}.items():
        env = replace(STATE, num_envs=200).build()
        env.reset(1)
        rng, start = np.random.default_rng(0), env.goals().achieved
        assert not env.is_success(*env.goals()).any()
        for _ in range(50):
            env.step(scale * rng.uniform(-1, 1, (200, 2)).astype(np.float32))
        moved[name] = (env.goal_distance(env.goals().achieved, start) > 0.01).mean()
        solved[name] = env.is_success(*env.goals()).mean()
    assert moved["none"] == solved["none"] == 0
    assert 0.2 < moved["random"] < 0.6
    assert solved["random"] < 0.05


def test_a_full_action_moves_the_pointer_by_0_15_and_the_rim_stops_the_puck_alone() -> None:
    env = replace(STATE, num_envs=2).build()
    env.reset(0)
    for data in env._copies:
        data.qpos[:] = [0.5, 0.5, -0.5, 0]
    for _ in range(5):
        env.step(np.array([[1, 0], [-0.5, 1]], np.float32))
    np.testing.assert_allclose(positions(env), [[0.5, 0.5, 0.25, 0], [0.5, 0.5, -0.875, 0.75]], atol=0.03)
    for _ in range(12):
        env.step(np.array([[-1, 0], [-1, 1]], np.float32))
    np.testing.assert_allclose(np.abs(positions(env)[:, 2:]), [[0.93, 0], [0.93, 0.93]], atol=0.01)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
def test_rewards_are_those_of_the_goals(kind: str) -> None:
    env = replace(STATE, reward=kind).build()
    env.reset(3)
    goal = env.goals().desired
    for _ in range(50):
        step = env.step(scripted_action(positions(env), goal))
        achieved, desired = env.goals()
        np.testing.assert_array_equal(desired, goal)
        np.testing.assert_array_equal(step.reward, env.compute_reward(achieved, desired))
        distance = np.linalg.norm(achieved - desired, axis=1)
        expected = -distance if kind == "dense" else np.where(distance < THRESHOLD, 0, -1)
        np.testing.assert_allclose(step.reward, expected, rtol=1e-6)
    assert not step.terminated.any()
    env.step(np.zeros((64, 2), np.float32))
    assert not (env.goals().desired == goal).any()
    any_size = np.zeros((7, 2), np.float32)
    assert env.compute_reward(any_size, any_size).tolist() == [0] * 7


def test_states_and_pixels_are_of_the_same_episodes() -> None:
    config = PusherConfig(num_envs=3, time_limit=5)
    for row, state in zip(
        play(config.build(), 4, 12), play(replace(config, observe="state").build(), 4, 12), strict=True
    ):
        assert (state.frame.shape, state.frame.dtype) == ((3, 6, 1, 1), np.float32)
        if hasattr(row, "reward"):
            np.testing.assert_array_equal(row.reward, state.reward)
            np.testing.assert_array_equal(row.puck_x, state.frame[:, 0, 0, 0])


# --- pictures ---


def middles(picture: np.ndarray, color: str) -> np.ndarray:
    """Middles (N, 2) of the puck (red) or the pointer (white) in pictures (N, 3, H, W) of the top camera."""
    red, green, _ = picture.astype(int).transpose(1, 0, 2, 3)
    weight = (red - green > 100) if color == "red" else (green > 200)
    axis = (np.arange(picture.shape[-1]) + 0.5) / picture.shape[-1] * 2 - 1
    total = weight.sum((1, 2))
    return np.stack([(weight.sum(1) * axis).sum(1) / total, -(weight.sum(2) * axis).sum(1) / total], 1)


def test_pictures_show_puck_and_pointer_where_they_are() -> None:
    env = PusherConfig(num_envs=32, size=96).build()
    frame = env.reset(0)
    for _ in range(5):
        np.testing.assert_allclose(middles(frame, "red"), positions(env)[:, :2], atol=0.03)
        np.testing.assert_allclose(middles(frame, "white"), positions(env)[:, 2:], atol=0.05)
        frame = env.step(np.full((32, 2), 0.7, np.float32)).frame
    goal = env.goal_frame()
    np.testing.assert_allclose(middles(goal, "red"), env.goals().desired, atol=0.03)
    width = ((goal[:, 0].astype(int) - goal[:, 1]) > 100).any(1).sum(1) / 96
    assert (width > 0.12).all()
    assert (width < 0.15).all()


def test_a_goal_picture_disturbs_nothing_and_is_that_of_its_episode() -> None:
    config = PusherConfig(num_envs=2, time_limit=4, background="gas")
    looking, blind = config.build(), config.build()
    np.testing.assert_array_equal(looking.reset(5), blind.reset(5))
    pictures = []
    for t in range(12):
        pictures.append(looking.goal_frame())
        action = np.full((2, 2), np.cos(t), np.float32)
        np.testing.assert_array_equal(looking.step(action).frame, blind.step(action).frame)
    assert [len({p.tobytes() for p in pictures[i : i + 5]}) for i in (0, 5)] == [1, 1]
    assert pictures[4].tobytes() != pictures[5].tobytes()
    np.testing.assert_array_equal(blind.goal_frame(), looking.goal_frame())


def test_a_background_stands_in_place_of_the_table_alone() -> None:
    config = PusherConfig(num_envs=4, size=64)
    clear = config.build().reset(0)
    noisy, unseen = (replace(config, background="noise", background_split=split).build() for split in ("train", "eval"))
    first, other = noisy.reset(0), unseen.reset(0)
    table = (clear == clear[:1, :, :1, :1]).all(1)
    same = (first == clear).all(1)
    assert 0.8 < table.mean() < 0.95
    np.testing.assert_array_equal(same, ~table)
    np.testing.assert_array_equal((first != other).any(1), table)


def test_further_cameras_show_the_same_moment() -> None:
    config = PusherConfig(num_envs=3, size=64, views=["oblique", "top", "30/-60"], background="gas")
    env, side = config.build(), replace(config, camera="oblique", views=[]).build()
    frame, seen = env.reset(2), side.reset(2)
    for _ in range(2):
        oblique, top, azimuth = env.views().swapaxes(0, 1)
        np.testing.assert_array_equal(top, frame)
        np.testing.assert_array_equal(oblique, seen)
        assert len({picture.tobytes() for picture in (*oblique, *top, *azimuth)}) == 9
        action = np.ones((3, 2), np.float32)
        frame, seen = env.step(action).frame, side.step(action).frame
    assert (env.num_views, side.num_views) == (3, 0)
    blind = replace(config, observe="state").build()
    blind.reset(2)
    blind.step(action)
    blind.step(action)
    np.testing.assert_array_equal(blind.views(), env.views())


def test_the_pixels_of_many_objects_tell_colour_and_shape_as_the_labels_do() -> None:
    env = PusherConfig(num_envs=120, size=96, objects="many", time_limit=1).build()
    frame, seen = env.reset(0), set()
    for moment in range(3):
        labels = env.labels()
        for picture, color, shape in zip(frame, labels["color"], labels["shape"], strict=True):
            colorful = picture.max(0) > 1.5 * picture.min(0)
            assert picture[:, colorful].mean(1).argmax() == color
            rows, columns = (np.flatnonzero(colorful.any(axis)) for axis in (0, 1))
            filled = colorful.sum() / (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
            assert np.digitize(filled, [0.65, 0.87]) == {0: 1, 1: 2, 2: 0}[int(shape)]  # cross, disc, square
            assert 0.11 < colorful.any(0).sum() / 96 < 0.17
            seen.add((int(color), int(shape)))
        frame = env.goal_frame() if moment == 0 else env.step(np.zeros((120, 2), np.float32)).frame
    assert len(seen) == 9


def test_what_the_puck_looks_like_moves_nothing() -> None:
    one, many = (replace(STATE, num_envs=3, time_limit=7, objects=objects).build() for objects in ("one", "many"))
    for row, other in zip(play(one, 6, 20), play(many, 6, 20), strict=True):
        np.testing.assert_array_equal(row.frame, other.frame)
    assert set(many.labels()) - set(one.labels()) == {"color", "shape"}


def test_scattered_pucks_lie_elsewhere_every_few_steps() -> None:
    env = PusherConfig(num_envs=20, observe="state", objects="many", scatter=4, time_limit=12).build()
    env.reset(0)
    looks, moved = env.labels(), []
    for _ in range(11):
        before = env.goals().achieved
        env.step(np.zeros((20, 2), np.float32))
        moved.append(np.linalg.norm(env.goals().achieved - before, axis=1))
        assert all((env.labels()[name] == looks[name]).all() for name in ("color", "shape"))
    far = np.mean(moved, axis=1) > 0.3
    assert np.flatnonzero(far).tolist() == [3, 7]
