import numpy as np
import pytest

from envs import GoalSpaceVector, GraspingConfig, GraspingVector, PointMassConfig
from envs.grasping_objects import NUM_OBJECTS, ids_of


@pytest.fixture(scope="module")
def env():
    vector = GraspingConfig(num_envs=12).build()
    yield vector
    vector.close()


def aim(env: GraspingVector, which: int | str = 0) -> np.ndarray:
    """At the object of that rank in each tray, or at the desired one."""
    desired = env.labels()["desired"]
    trays = zip(env.positions(), desired, strict=True)
    return np.float32([tray[d] if which == "desired" else [*tray.values()][int(which)] for tray, d in trays])


def test_the_gripper_takes_what_lies_below_and_nothing_else_vanishes(env: GraspingVector) -> None:
    env.reset(0)
    before, action = env.positions(), aim(env, 1)
    step = env.step(action)
    held = env.labels()["held"]
    assert held.tolist() == [[*tray][1] for tray in before]
    assert [set(tray) for tray in env.positions()] == [{*tray} - {h} for tray, h in zip(before, held, strict=True)]
    assert step.terminated.all()
    env.step(action)
    assert (env.labels()["held"] == -1).all()
    assert not env.goals().achieved.any()


def test_a_grasp_beside_the_objects_takes_none_and_shows_the_empty_stage(env: GraspingVector) -> None:
    env.reset(1)
    env.step(np.full((12, 2), 1, np.float32))
    assert (env.labels()["held"] == -1).all()
    empty = env.outcome_frame()
    assert {len(tray) for tray in env.positions()} == {5}
    assert np.ptp(empty, axis=(2, 3)).max() < 6  # one gray, but for rounding
    env.reset(1)
    env.step(aim(env))
    assert np.ptp(env.outcome_frame(), axis=(2, 3)).max(1).min() > 60


def test_a_random_grasp_takes_as_often_as_objects_and_footprint_cover_the_tray(env: GraspingVector) -> None:
    env.reset(2)
    rng, hits = np.random.default_rng(0), list[bool]()
    for _ in range(40):
        env.step(rng.uniform(-1, 1, (12, 2)).astype(np.float32))
        hits += (env.labels()["held"] >= 0).tolist()
        env.step(np.zeros((12, 2), np.float32))
    assert 0.05 < np.mean(hits) < 0.3


def test_reward_and_success_are_those_of_the_desired_object_which_is_there(env: GraspingVector) -> None:
    for which in ("desired", 0):
        env.reset(3)
        desired, step = env.labels()["desired"], env.step(aim(env, which))
        same = env.labels()["held"] == desired
        assert same.all() == (which == "desired")
        goals = env.goals()
        assert goals.desired.argmax(1).tolist() == desired.tolist()
        np.testing.assert_array_equal(step.reward, same)
        np.testing.assert_array_equal(env.compute_reward(*goals), same)
        np.testing.assert_array_equal(env.is_success(*goals), same)
        np.testing.assert_array_equal(env.goal_distance(*goals), ~same)
        assert env.compute_terminated(*goals).all()


def test_the_goal_picture_shows_the_desired_object_in_another_pose_and_stays(env: GraspingVector) -> None:
    env.reset(4)
    before = env.goal_frame()
    np.testing.assert_array_equal(before, env.goal_frame())
    env.step(aim(env, "desired"))
    np.testing.assert_array_equal(before, env.goal_frame())
    held = env.outcome_frame()
    assert (np.abs(held.astype(int) - before).mean((1, 2, 3)) > 0.5).all()
    hue = [p.astype(float).max((2, 3)) for p in (before, held)]  # much the same whatever pose and light
    hue = [colour / np.linalg.norm(colour, axis=1, keepdims=True) for colour in hue]
    likeness = hue[0] @ hue[1].T
    assert likeness.diagonal().mean() > likeness.mean() + 0.05


def test_actions_and_labels_are_places_in_the_picture(env: GraspingVector) -> None:
    env.reset(5)
    labels, pixel = env.labels(), (aim(env, "desired") + 1) / 2 * 64
    np.testing.assert_allclose(np.stack([labels["x"], labels["y"]], 1), pixel, atol=1e-3)
    assert (env.object_at(aim(env, "desired")) == labels["desired"]).all()
    frame = env._draw()
    background = np.median(frame, axis=(2, 3))
    x, y = pixel.astype(int).T
    there = frame[np.arange(12), :, y, x]
    assert (np.abs(there.astype(float) - background).max(1) > 15).mean() > 0.9


def test_the_label_of_the_desired_object_follows_it_where_another_one_is_taken(env: GraspingVector) -> None:
    env.reset(5)
    before, action = env.labels(), aim(env, "desired")
    env.step(np.full((12, 2), 1, np.float32))  # none is taken, all are moved
    after = env.labels()
    assert (before["x"] != after["x"]).all()
    np.testing.assert_allclose(np.stack([after["x"], after["y"]], 1), (aim(env, "desired") + 1) / 2 * 64, atol=1e-3)
    env.reset(5)
    env.step(action)  # it is taken
    np.testing.assert_array_equal(env.labels()["x"], before["x"])


def test_the_others_move_by_pixels_and_stay_in_the_picture(env: GraspingVector) -> None:
    moved = []
    for seed in range(10):
        env.reset(seed)
        before = env.positions()
        env.step(aim(env))
        for tray, after in zip(before, env.positions(), strict=True):
            moved += [np.linalg.norm(after[n] - tray[n]) * 32 for n in after]
            assert all(np.abs(position).max() < 1 for position in after.values())
    assert 2 < np.mean(moved) < 5


def test_a_position_of_a_grid_is_a_grasp_at_its_middle(env: GraspingVector) -> None:
    rows, columns = np.arange(12) % 4, np.arange(12) // 3
    positions = np.stack([(columns + 0.5) / 4, (rows + 0.5) / 4], axis=1) * 2 - 1
    grid = GraspingConfig(num_envs=12, grid=4).build()
    assert grid.action_space.n == 16
    for seed in range(5):
        env.reset(seed)
        grid.reset(seed)
        env.step(positions.astype(np.float32))
        grid.step(rows * 4 + columns)
        np.testing.assert_array_equal(grid.labels()["held"], env.labels()["held"])
    with pytest.raises(ValueError, match="out of range: use 0 to 15"):
        grid.step(np.full(12, 16))
    grid.close()


class MeanColour:
    """A goal space: the mean colour of a picture."""

    goal_dim = 3

    def embed(self, frames: np.ndarray, context: np.ndarray) -> np.ndarray:
        return frames.mean((2, 3)).astype(np.float32)

    def reward(self, achieved: np.ndarray, desired: np.ndarray) -> np.ndarray:
        return -np.linalg.norm(achieved - desired, axis=1).astype(np.float32)


def test_a_goal_space_sees_what_is_held_and_not_the_tray(env: GraspingVector) -> None:
    seen = GoalSpaceVector(env, MeanColour(), observe="pixels", source="env")  # type: ignore[arg-type]
    seen.reset(6)
    np.testing.assert_array_equal(seen.goals().achieved, env.outcome_frame().mean((2, 3)).astype(np.float32))
    step = seen.step(aim(env, "desired"))
    held, wanted = (pictures.mean((2, 3)) for pictures in (env.outcome_frame(), env.goal_frame()))
    np.testing.assert_allclose(seen.goals().achieved, held, rtol=1e-6)
    np.testing.assert_allclose(step.reward, -np.linalg.norm(held - wanted, axis=1), rtol=1e-4)


def test_a_goal_space_has_the_views_of_its_environment() -> None:
    base = PointMassConfig(num_envs=2, grayscale=False, views=["turned"]).build()
    goal = np.zeros(base.frame_shape, np.uint8)
    seen = GoalSpaceVector(base, MeanColour(), observe="pixels", source="env", goal=goal)  # type: ignore[arg-type]
    seen.reset(0)
    assert seen.num_views == 1
    np.testing.assert_array_equal(seen.views(), base.views())


def test_seen_and_unseen_objects_are_apart() -> None:
    seen, unseen = ids_of("seen"), ids_of("unseen")
    assert (len(seen), len(unseen)) == (60, 20)
    assert sorted([*seen, *unseen]) == [*range(NUM_OBJECTS)]
    env = GraspingConfig(num_envs=30, split="unseen").build()
    env.reset(0)
    assert {n for tray in env.positions() for n in tray} <= set(unseen.tolist())
    env.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "sen"}, "env.split must be one of .*'seen'"),
        ({"objects": 9}, r"env.objects must be in \[1, 8\], got 9"),
        ({"grid": -1}, r"env.grid must be in \[0, 64\], got -1"),
        ({"size": 8}, r"env.size must be in \[16, 1024\], got 8"),
        ({"num_envs": 0}, r"env.num_envs must be in \[1, 4096\], got 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraspingConfig(**changes)
