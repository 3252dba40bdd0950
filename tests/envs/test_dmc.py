import multiprocessing
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest
from env_help import play

from envs import DmcConfig, Rollout
from envs.distractors import Gas, Noise, background_rng
from envs.dmc import TASKS
from envs.rendering import load_suite

try:
    suite = load_suite()
except RuntimeError as error:
    pytest.skip(str(error), allow_module_level=True)

CARTPOLE = DmcConfig(action_repeat=300)  # episodes of 4 agent steps: 300, 300, 300 and 100 control steps
PLANE, GEOM = 0, 5  # mjGEOM_PLANE, mjOBJ_GEOM


def test_the_table_of_tasks_is_the_suite() -> None:
    tasks = {domain: tuple(tasks) for domain, tasks in suite.TASKS_BY_DOMAIN.items() if domain != "lqr"}
    assert tasks == TASKS


def random_state(seed: int, copies: int, i: int) -> np.random.RandomState:
    simulation = np.random.SeedSequence(seed).spawn(copies)[i].spawn(2)[0]
    return np.random.RandomState(np.random.MT19937(simulation))


@pytest.mark.parametrize(
    ("domain", "task", "repeat"), [("cartpole", "swingup", 300), ("finger", "spin", 7), ("quadruped", "walk", 3)]
)
def test_equals_a_plain_loop_over_dm_control(domain: str, task: str, repeat: int) -> None:
    config = DmcConfig(domain=domain, task=task, num_envs=2, quality="full", action_repeat=repeat, size=64)
    env = config.build()
    frames = env.reset(4)
    plain = suite.load(domain, task, task_kwargs={"random": random_state(4, 2, 1)})
    spec = plain.action_spec()
    plain.reset()
    over = False
    for sign in (1, -1, 1, -1, 1, -1):
        expected = plain.physics.render(64, 64, camera_id=2 if domain == "quadruped" else 0)
        np.testing.assert_array_equal(frames[1], expected.transpose(2, 0, 1))
        observed = np.concatenate([np.ravel(part) for part in plain.task.get_observation(plain.physics).values()])
        np.testing.assert_allclose([label[1] for label in env.labels().values()], observed, rtol=1e-6)
        step = env.step(np.full((2, *spec.shape), sign, np.float32))
        reward, made = 0.0, 0
        if over:
            plain.reset()
        else:
            for _ in range(repeat):
                made += 1
                moment = plain.step(spec.maximum if sign == 1 else spec.minimum)
                reward += moment.reward
                if moment.last():
                    break
        assert step.reward[1] == pytest.approx(reward, rel=1e-6)
        assert step.first.tolist() == [over, over]
        assert step.env_steps.tolist() == [made] * 2
        over = not over and moment.last()
        assert step.truncated.tolist() == step.game_over.tolist() == [over, over]
        frames = step.frame
    env.close()
    plain.physics.free()


def test_an_episode_has_the_control_steps_that_it_had() -> None:
    rollout = Rollout(replace(CARTPOLE, num_envs=2).build(), 1, "repeat")
    rollout.reset(0)
    ended = []
    for _ in range(10):
        rollout.step(lambda _: np.zeros((2, 1), np.float32))
        ended += [(episode.length, episode.env_steps) for episode in rollout.episodes]
    assert ended == [(4, 1000)] * 4
    rollout.env.close()


def test_an_end_of_the_task_terminates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dm_control.suite.cartpole.Balance.get_termination", lambda self, physics: 0.0)
    first, second = play(replace(CARTPOLE, action_repeat=8).build(), 0, 2)[1:]
    assert (first.terminated[0], first.truncated[0], first.game_over[0]) == (True, False, True)
    assert 0 < first.reward[0] < 1  # the action is not held beyond the end
    assert second.first[0]


def test_a_diverging_simulation_truncates_at_the_last_picture(caplog: pytest.LogCaptureFixture) -> None:
    config = replace(CARTPOLE, num_envs=2)
    env = config.build()
    env.reset(7)
    action = np.zeros((2, 1), np.float32)
    before = env.step(action)
    env._shares[0]._target._copies[1]._env.physics.data.qvel[0] = np.nan
    lost, after = env.step(action), env.step(action)
    assert lost.truncated.tolist() == lost.game_over.tolist() == [False, True]
    assert not lost.terminated.any()
    assert (lost.reward[0] > 0, lost.reward[1]) == (True, 0)
    np.testing.assert_array_equal(lost.frame[1], before.frame[1])
    assert not np.array_equal(lost.frame[0], before.frame[0])
    assert after.first.tolist() == [False, True]
    assert not np.array_equal(after.frame[1], lost.frame[1])
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.fullmatch(r"environment seed 7, copy 1: the episode ends here: .*mjWARN_BADQVEL.*", line), line


def test_frames_of_processes_are_copies_and_the_processes_end() -> None:
    env = DmcConfig(num_envs=3, action_repeat=500, processes=2).build()
    assert len(multiprocessing.active_children()) == 2
    start = env.reset(0)
    assert not np.shares_memory(env.step(np.zeros((3, 1), np.float32)).frame, start)
    env.close()
    env.close()
    assert multiprocessing.active_children() == []


def test_a_lost_worker_is_named_with_its_seed() -> None:
    env = replace(CARTPOLE, action_repeat=1, num_envs=3, processes=1).build()
    env.reset(77)
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    message = r"^dm_control worker 0 \(copies 0 to 2\) died with exit code -9; environment seed: 77$"
    with pytest.raises(RuntimeError, match=message):
        env.step(np.zeros((3, 1), np.float32))
    assert multiprocessing.active_children() == []


# --- pictures ---


@pytest.mark.parametrize(
    ("domain", "task"), [("cartpole", "swingup"), ("walker", "walk"), ("reacher", "easy"), ("cheetah", "run")]
)
def test_the_background_is_what_mujoco_segments_as_sky_and_planes(domain: str, task: str) -> None:
    config = DmcConfig(domain=domain, task=task, size=64, action_repeat=9)
    noisy, clear = replace(config, background="noise").build(), config.build()
    plain = suite.load(domain, task, task_kwargs={"random": random_state(2, 1, 0)})
    plain.reset()
    model = plain.physics.model
    planes = np.flatnonzero((model.geom_bodyid == 0) & (model.geom_type == PLANE))
    action = np.full((1, *clear.action_space.shape), 0.5, np.float32)
    frame, original = noisy.reset(2), clear.reset(2)
    for _ in range(3):
        ids, kinds = plain.physics.render(64, 64, camera_id=0, segmentation=True).transpose(2, 0, 1)
        background = (ids == -1) | ((kinds == GEOM) & np.isin(ids, planes))
        same = (frame == original).all(1)[0]
        assert 0.5 < background.mean() < 0.99
        np.testing.assert_array_equal(same, ~background)
        frame, original = noisy.step(action).frame, clear.step(action).frame
        for _ in range(9):
            plain.step(action[0])
    plain.physics.free()
    for env in (noisy, clear):
        env.close()


def test_backgrounds_change_once_an_agent_step_and_not_the_simulation() -> None:
    config = DmcConfig(size=64, action_repeat=300, background="noise")
    runs, noises = {}, {split: Noise(64) for split in ("train", "eval")}
    for split, noise in noises.items():
        noise.start(background_rng(np.random.SeedSequence(3).spawn(1)[0].spawn(2)[1], split))
        runs[split] = play(replace(config, background_split=split).build(), 3, 6)
    assert [step.reward for step in runs["train"][1:]] == [step.reward for step in runs["eval"][1:]]
    for step, other in zip(runs["train"], runs["eval"], strict=True):
        for seen, split in ((step.frame, "train"), (other.frame, "eval")):
            background = (seen[0] == noises[split].frame().transpose(2, 0, 1)).all(0)
            assert 0.8 < background.mean() < 1
            np.testing.assert_array_equal(background, (step.frame != other.frame).any(1)[0])


@pytest.mark.parametrize(("speed", "passed"), [(0, [1, 300, 300, 300, 100, 1]), (2, [2, 2, 2, 2, 2, 2])])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_background_passes_with_control_steps_and_may_go_on_over_episodes(
    speed: int, passed: list[int], fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(Noise, "frame", lambda self, skip=0: counts.append(skip + 1) or np.zeros(self._shape, np.uint8))
    begun: list[object] = []
    monkeypatch.setattr(Noise, "start", lambda self, rng: begun.append(rng))
    config = replace(CARTPOLE, size=32, background="noise", background_speed=speed, background_fixed=fixed)
    play(config.build(), 3, 5)
    assert counts == passed
    assert len(begun) == (1 if fixed else 2)


def test_the_floor_may_stay_and_noise_is_on_the_whole_picture() -> None:
    walker = DmcConfig(domain="walker", task="walk", size=32, background="noise")
    with_floor, without = replace(walker, background_floor=False).build(), walker.build()
    for env in (with_floor, without):
        env.reset(0)
    kept, gone = with_floor.foreground()[1].mean(), without.foreground()[1].mean()
    assert 0.1 < kept < gone - 0.1
    clean, noisy = (
        replace(walker, background="none").build(),
        replace(walker, background="none", pixel_noise=5.0).build(),
    )
    difference = noisy.reset(0).astype(float) - clean.reset(0)
    assert difference.std() == pytest.approx(5, rel=0.15)
    assert replace(walker, pixel_noise=5.0).protocol("clean").env == replace(walker, background="none")
    for env in (with_floor, without, clean, noisy):
        env.close()


def test_every_episode_begins_at_a_place_of_its_own_in_the_film(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, start = [], Gas.start

    def noted(self: Gas, rng: np.random.Generator) -> None:
        start(self, rng)
        begun.append(self.positions(self._step).tobytes())

    monkeypatch.setattr(Gas, "start", noted)
    env = DmcConfig(size=64, action_repeat=300, background="gas").build()
    _, *steps = play(env, 3, 14)  # games of 4 steps, and one more for the reset
    assert sum(bool(step.first[0]) for step in steps) == 2
    assert len(set(begun)) == len(begun) == 3
    env.close()


def test_qualities_show_the_same_scene_and_cameras_have_names() -> None:
    settings = {"usual": {}, "full": {"quality": "full"}, "side": {"camera": "side"}, "back": {"camera": "back"}}
    cheetah = DmcConfig(domain="cheetah", task="run")
    seen = {name: replace(cheetah, **changes).build().reset(0)[0].astype(int) for name, changes in settings.items()}
    assert abs(seen["usual"].mean() - seen["full"].mean()) < 2
    assert 0 < (np.abs(seen["usual"] - seen["full"]).max(0) > 30).mean() < 0.1  # edges and shadows
    np.testing.assert_array_equal(seen["usual"], seen["side"])
    assert not np.array_equal(seen["side"], seen["back"])


@pytest.mark.parametrize("background", ["none", "noise"])
def test_further_cameras_show_the_same_moment_and_change_nothing(background: str) -> None:
    one = DmcConfig(domain="walker", task="walk", num_envs=2, action_repeat=4, background=background)
    several = replace(one, views=["back", "side", "90/0"], processes=2)
    alone, together = one.build(), several.build()
    assert (alone.num_views, together.num_views) == (0, 3)
    np.testing.assert_array_equal(alone.reset(3), together.reset(3))
    before = together.views()
    action = np.ones((2, 6), np.float32)
    frame = together.step(action).frame
    np.testing.assert_array_equal(alone.step(action).frame, frame)
    back, side, azimuth = together.views().swapaxes(0, 1)
    np.testing.assert_array_equal(side, frame)  # the walker's usual camera
    assert not np.array_equal(before[:, 1], side)
    assert len({picture.tobytes() for picture in (*back, *side, *azimuth)}) == 6
    alone.close()
    together.close()


@pytest.mark.parametrize("wrong", [{"camera": "bak"}, {"views": ["back", "90"]}])
def test_an_unknown_camera_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"unknown camera .* or azimuth/elevation such as 90/-30"):
        replace(DmcConfig(domain="walker", task="walk", action_repeat=4), **wrong).build()
