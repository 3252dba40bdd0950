"""The DeepMind Control Suite from pixels, with or without distractors, N copies in one or several processes."""

import logging
from ctypes import Array, c_ubyte
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from envs.base import Actions, EnvError, Padding, VectorEnv, VectorStep
from envs.distractors import check_files
from envs.rendering import Screen, choose_backend, load_suite, log_renderer
from envs.scenes import SceneConfig
from envs.workers import SPAWN, Local, Worker, WorkerError
from harness.checks import check_least
from harness.suggest import nearest

log = logging.getLogger(__name__)

# Action repeats of PlaNet (Hafner et al. 2019), the "PlaNet benchmark" of later papers.
PLANET = {"ball_in_cup": 4, "cartpole": 8, "cheetah": 4, "finger": 2, "reacher": 4, "walker": 2}
# Of `dm_control.suite`, which takes seconds to import. lqr is left out: no bounds of actions, no time limit.
TASKS = {
    "acrobot": ("swingup", "swingup_sparse"),
    "ball_in_cup": ("catch",),
    "cartpole": ("balance", "balance_sparse", "swingup", "swingup_sparse", "two_poles", "three_poles"),
    "cheetah": ("run",),
    "dog": ("stand", "walk", "trot", "run", "fetch"),
    "finger": ("spin", "turn_easy", "turn_hard"),
    "fish": ("upright", "swim"),
    "hopper": ("stand", "hop"),
    "humanoid": ("stand", "walk", "run", "run_pure_state"),
    "humanoid_CMU": ("stand", "walk", "run"),
    "manipulator": ("bring_ball", "bring_peg", "insert_ball", "insert_peg"),
    "pendulum": ("swingup",),
    "point_mass": ("easy", "hard"),
    "quadruped": ("walk", "run", "escape", "fetch"),
    "reacher": ("easy", "hard"),
    "stacker": ("stack_2", "stack_4"),
    "swimmer": ("swimmer6", "swimmer15"),
    "walker": ("stand", "walk", "run"),
}
CAMERAS = {"quadruped": "y"}  # where the first camera does not follow the robot


@dataclass(frozen=True)
class DmcConfig(SceneConfig):
    """A task of the Control Suite, its picture, and what moves behind the robot."""

    name: str = "dmc"
    num_envs: int = 1
    domain: str = "cartpole"  # domain of the Control Suite
    task: str = "swingup"  # task of the domain
    action_repeat: int = 0  # control steps an action is held; 0: PlaNet's number for the domain
    repeat_first: bool = True  # an episode's first frame stands before it, as in CURL, DrQ and DBC; false: black frames
    processes: int = 0  # worker processes that share the copies; 0: this process

    def __post_init__(self) -> None:
        if self.domain == "lqr":
            raise ValueError("domain lqr is left out: its actions have no bounds and its episodes no time limit")
        if self.domain not in TASKS:
            raise ValueError(f"unknown dm_control domain {self.domain!r}: {nearest(self.domain, TASKS)}")
        super().__post_init__()
        check_least(0, "env", action_repeat=self.action_repeat, processes=self.processes)

    @classmethod
    def members(cls) -> dict[str, dict[str, str]]:
        """See `EnvConfig.members`: domain and task, `walker_walk`."""
        return {f"{domain}_{task}": {"domain": domain, "task": task} for domain in TASKS for task in TASKS[domain]}

    @property
    def repeat(self) -> int:
        """Control steps an action is held.

        Raises:
            ValueError: PlaNet has no number for the domain.
        """
        if not self.action_repeat and self.domain not in PLANET:
            raise ValueError(
                f"PlaNet has no action repeat for {self.domain!r}, only for {', '.join(PLANET)}: "
                "give env.action_repeat=2 or another number"
            )
        return self.action_repeat or PLANET[self.domain]

    def build(self, labels: bool = False) -> "DmcVector":  # noqa: ARG002
        """See `EnvConfig.build`. Labels are always there."""
        if self.task not in (tasks := TASKS[self.domain]):
            raise ValueError(f"unknown task {self.task!r} of {self.domain}: {nearest(self.task, tasks)}")
        return DmcVector(self)

    @property
    def padding(self) -> Padding:
        """See `EnvConfig.padding`."""
        return "repeat" if self.repeat_first else "zeros"

    @property
    def label(self) -> str:
        """Domain, task and background."""
        return "_".join([self.domain, self.task, *([] if self.background == "none" else [self.background])])

    @property
    def fps(self) -> float:
        """About real time: a control step lasts 10 to 40 ms."""
        return 50 / self.repeat


class DmcVector(VectorEnv):
    """N copies of one task. Rewards are summed over the action repeat; RGB frames.

    A time limit truncates. Few tasks terminate; where one does, `terminated` says so. A simulation that diverges
    truncates too, at the last picture and with the rewards up to there, and a warning is logged.
    """

    def __init__(self, config: DmcConfig) -> None:
        """Raises ValueError for an unknown camera or missing backgrounds, RuntimeError where MuJoCo cannot render."""
        choose_backend()  # once, not in each worker
        check_files(config.background, config.background_folder)
        self.num_envs = config.num_envs
        self.frame_shape = (3, config.size, config.size)
        self.num_views = len(config.views)
        self.asynchronous = config.processes > 0
        self._seed: int | None = None
        self._shares: list[Local | Worker] = []
        pixels = SPAWN.RawArray(c_ubyte, config.num_envs * 3 * config.size**2)
        self._frames = _as_frames(pixels, self.frame_shape)
        if config.processes:
            parts = np.array_split(np.arange(self.num_envs), min(config.processes, self.num_envs))
            for i, copies in enumerate(parts):
                build = partial(_Copies, config, pixels, int(copies[0]), len(copies))
                self._shares.append(Worker(build, f"worker {i} (copies {copies[0]} to {copies[-1]})"))
        else:
            self._shares.append(Local(partial(_Copies, config, pixels, 0, self.num_envs)))
        action_dim, renderer = self._ask("describe", [()] * len(self._shares))[0]
        self.action_space = Box(-1, 1, (action_dim,), np.float32)
        log_renderer(f"{config.domain} {config.task}", config.quality, renderer)

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        self._seed = seed
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        self._ask("reset", self._deal(np.random.SeedSequence(seed).spawn(self.num_envs)))
        return self._frames.copy()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`.

        Raises:
            RuntimeError: a worker died or hangs.
        """
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: Actions) -> None:
        """See `VectorEnv.step_async`."""
        self._check_action(action)
        self._send("step", self._deal(action))

    def step_wait(self) -> VectorStep:
        """See `VectorEnv.step_wait`."""
        reward, terminated, truncated, made = map(np.concatenate, zip(*self._answers(), strict=True))
        first, self._over = self._over, terminated | truncated
        return VectorStep(self._frames.copy(), reward, terminated, truncated, self._over, first, made)

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`: what an agent would observe that does not look at pixels."""
        parts = self._ask("labels", [()] * len(self._shares))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def views(self) -> NDArray[np.uint8]:
        """See `VectorEnv.views`: the cameras of `env.views`, in their order."""
        return np.concatenate(self._ask("views", [()] * len(self._shares)))

    def foreground(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """See `VectorEnv.foreground`."""
        pictures, empty = zip(*self._ask("foreground", [()] * len(self._shares)), strict=True)
        return np.concatenate(pictures), np.concatenate(empty)

    def close(self) -> None:
        """See `VectorEnv.close`: ends the workers and frees the simulations."""
        for share in self._shares:
            share.close()

    def _deal(self, items: Any) -> list[tuple[Any]]:
        return [(part,) for part in np.array_split(items, len(self._shares))]

    def _ask(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        self._send(method, arguments)
        return self._answers()

    def _send(self, method: str, arguments: list[tuple[Any, ...]]) -> None:
        try:
            for share, given in zip(self._shares, arguments, strict=True):
                share.ask(method, *given)
        except ValueError:
            self.close()
            raise

    def _answers(self) -> list[Any]:
        try:
            return [share.answer() for share in self._shares]
        except WorkerError as error:
            self.close()
            raise EnvError(f"dm_control {error}; environment seed: {self._seed}") from error
        except ValueError:
            self.close()
            raise


def _as_frames(pixels: "Array[c_ubyte]", frame_shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(pixels).cast("B"), np.uint8).reshape(-1, *frame_shape)


class _Copies:
    """Some of the copies, in the process that runs them; they draw into their part of `pixels`."""

    def __init__(self, config: DmcConfig, pixels: "Array[c_ubyte]", start: int, count: int) -> None:
        self._frames = _as_frames(pixels, (3, config.size, config.size))[start : start + count]
        self._copies = [_Copy(config) for _ in range(count)]

    def describe(self) -> tuple[int, str]:
        """Numbers in an action, and the name of the renderer."""
        return self._copies[0].action_dim, self._copies[0].screen.renderer

    def reset(self, seeds: list[np.random.SeedSequence]) -> None:
        for copy, frame, seed in zip(self._copies, self._frames, seeds, strict=True):
            copy.seed(seed)
            copy.begin()
            copy.draw(frame)

    def step(self, action: Actions) -> tuple[NDArray[Any], ...]:
        """Reward, terminated, truncated and control steps of each copy."""
        results = []
        for copy, frame, one in zip(self._copies, self._frames, action, strict=True):
            results.append(copy.step(one))
            if not copy.diverged:
                copy.draw(frame)
        reward, terminated, truncated, made = zip(*results, strict=True)
        return np.array(reward, np.float32), np.array(terminated), np.array(truncated), np.array(made, np.int64)

    def labels(self) -> dict[str, NDArray[np.float32]]:
        """Numbers by name, (copies,) each; those of one observation are counted."""
        rows = [copy.state() for copy in self._copies]
        return {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}

    def views(self) -> NDArray[np.uint8]:
        """Pictures (copies, V, 3, H, W) of the further cameras."""
        return np.stack([copy.draw_views() for copy in self._copies])

    def foreground(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Pictures (copies, 3, H, W) without backgrounds, and where (copies, H, W) those stand."""
        layers = [copy.screen.layers() for copy in self._copies]
        return np.stack([picture.transpose(2, 0, 1) for picture, _ in layers]), np.stack([empty for _, empty in layers])

    def close(self) -> None:
        for copy in self._copies:
            copy.close()


class _Copy:
    """One dm_control environment, its cameras and its background."""

    def __init__(self, config: DmcConfig) -> None:
        self._repeat = config.repeat
        self._random = np.random.RandomState(0)  # the task draws from it
        self._env = load_suite().load(config.domain, config.task, task_kwargs={"random": self._random})
        self._physics_error = import_module("dm_control.rl.control").PhysicsError  # after the backend's choice
        spec = self._env.action_spec()
        self.action_dim = spec.shape[0]
        self._low, self._range = spec.minimum, spec.maximum - spec.minimum
        self._distractors = config.build_distractors()
        self.screen, *self._views = config.build_screens(self._env.physics, CAMERAS.get(config.domain, ""))

    def seed(self, seed: np.random.SeedSequence) -> None:
        """Everything random from here on follows from `seed`; the simulation does not depend on the background."""
        self._seed = seed
        simulation, background = seed.spawn(2)
        self._random.set_state(np.random.RandomState(np.random.MT19937(simulation)).get_state())
        self._distractors.seed(background)

    def begin(self) -> None:
        """Start an episode."""
        self._observed = self._env.reset().observation
        self._over = self.diverged = False
        self._passed = 1  # control steps since the last picture
        self._distractors.begin()

    def step(self, action: NDArray[np.float32]) -> tuple[float, bool, bool, int]:
        """Hold an action, or start the next episode: reward, terminated, truncated, control steps."""
        if self._over:
            self.begin()
            return 0.0, False, False, 0
        control = self._low + (action.astype(np.float64) + 1) / 2 * self._range
        reward = 0.0
        for made in range(1, self._repeat + 1):
            try:
                moment = self._env.step(control)
            except self._physics_error as error:
                self._over = self.diverged = True  # MuJoCo has set the state back: it leads nowhere
                seed, i = self._seed.entropy, self._seed.spawn_key[-1]
                log.warning("environment seed %s, copy %s: the episode ends here: %s", seed, i, error)
                return reward, False, True, made
            reward += moment.reward
            if moment.last():
                break
        self._observed, self._passed = moment.observation, made
        self._over = moment.last()
        terminated = self._over and moment.discount == 0
        return reward, terminated, self._over and not terminated, made

    def state(self) -> dict[str, float]:
        """Each number that the task observes."""
        flat = {name: np.ravel(numbers) for name, numbers in self._observed.items()}
        return {f"{name}_{i}": float(number) for name, numbers in flat.items() for i, number in enumerate(numbers)}

    def draw(self, frame: NDArray[np.uint8]) -> None:
        """The picture of this moment, into (3, H, W)."""
        self._distractors.advance(self._passed)
        frame[:] = self._picture(self.screen)

    def draw_views(self) -> NDArray[np.uint8]:
        """Pictures (V, 3, H, W) of this moment by the further cameras."""
        return np.stack([self._picture(screen) for screen in self._views])

    def _picture(self, screen: Screen) -> NDArray[np.uint8]:
        return self._distractors.noisy(screen.draw(self._distractors.behind).transpose(2, 0, 1))

    def close(self) -> None:
        self._env.physics.free()  # left to the end of the interpreter, OpenGL complains
