"""Atari games, N copies stepped together in C++ by ALE."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from envs.atari_ram import Consoles
from envs.base import Actions, EnvConfig, Protocol, VectorEnv, VectorStep
from harness.checks import check_least, check_within
from harness.suggest import nearest

# Shipped with the others, but ALE ends the process on them: they have no game for one player.
TWO_PLAYER = {"combat", "joust", "maze_craze", "warlords"}

# Evaluation protocols: the probability of a random action, and what differs from the training.
PROTOCOLS: dict[str, tuple[float, dict[str, Any]]] = {
    "nature": (0.05, {"sticky": 0.0, "noop_max": 30, "max_frames": 18_000}),  # Mnih et al. 2015
    "rainbow": (0.001, {"sticky": 0.0, "noop_max": 30, "max_frames": 108_000}),  # Hessel et al. 2018
    "ale_v5": (0.001, {"sticky": 0.25, "noop_max": 0, "max_frames": 108_000}),  # Gymnasium's ALE/*-v5
    # Machado et al. 2018
    "machado": (0.01, {"sticky": 0.25, "noop_max": 0, "max_frames": 18_000, "full_actions": True}),
    "env": (0.0, {}),
}


@dataclass(frozen=True)
class AtariConfig(EnvConfig):
    """An Atari game and its preprocessing. The defaults are the training protocol of DQN (Mnih et al. 2015)."""

    simulator: ClassVar[tuple[str, ...]] = ("ale-py",)

    name: str = "atari"
    num_envs: int = 8
    game: str = "pong"  # a ROM name in snake case
    frame_skip: int = 4  # frames an action is held; a frame is the maximum of the last two
    sticky: float = 0.0  # probability per frame that the previous action is repeated
    noop_max: int = 30  # an episode starts after 0 to noop_max - 1 no-ops, FIRE included
    fire_reset: bool = True  # press FIRE at the start where the game has it
    life_loss: bool = True  # a lost life ends the return; the game goes on
    full_actions: bool = False  # all 18 actions instead of those the game reads
    grayscale: bool = True  # gray frames instead of colour
    size: int = 84  # pixels, height and width
    max_frames: int = 108_000  # frames, not steps: 30 minutes of play, then truncated
    threads: int = 1  # threads of the emulator

    def __post_init__(self) -> None:
        if self.game in TWO_PLAYER:
            raise ValueError(f"env.game={self.game} needs two players, and there is one: choose another game")
        if self.game not in (games := atari_games()):
            raise ValueError(f"unknown Atari game {self.game!r}: {nearest(self.game, games)}")
        check_least(1, "env", num_envs=self.num_envs, frame_skip=self.frame_skip, size=self.size)
        check_least(1, "env", max_frames=self.max_frames, threads=self.threads)
        check_least(0, "env", noop_max=self.noop_max)
        check_within("[0, 1)", "env", sticky=self.sticky)

    @classmethod
    def members(cls) -> dict[str, dict[str, str]]:
        """See `EnvConfig.members`: the games, those for two players too, which are refused with a reason."""
        return {game: {"game": game} for game in sorted(roms.get_all_rom_ids())}

    def build(self, labels: bool = False) -> "AtariVector":
        """See `EnvConfig.build`. Labels take a second emulation."""
        return AtariVector(self, labels)

    @property
    def label(self) -> str:
        """The game."""
        return self.game

    @property
    def fps(self) -> float:
        """Real time: the console draws 60 frames a second."""
        return 60 / self.frame_skip

    def protocol(self, name: str | None = None) -> Protocol:
        """See `EnvConfig.protocol`: one of `PROTOCOLS`, by default `nature`."""
        name = name or "nature"
        if name not in PROTOCOLS:
            raise ValueError(f"unknown protocol {name!r}: {nearest(name, PROTOCOLS)}")
        epsilon, overrides = PROTOCOLS[name]
        if overrides.get("full_actions", self.full_actions) != self.full_actions:
            raise ValueError(f"protocol={name} is for agents trained with env.full_actions=true: use protocol=ale_v5")
        return Protocol(name, epsilon, replace(self, life_loss=False, **overrides))

    def display(self, size: int) -> "AtariConfig":
        """See `EnvConfig.display`."""
        return replace(self, grayscale=False, size=size)


def atari_games() -> list[str]:
    """The names that `AtariConfig.game` takes, sorted."""
    return sorted(set(roms.get_all_rom_ids()) - TWO_PLAYER)


class AtariVector(VectorEnv):
    """N copies of one Atari game. Rewards are the game's own points."""

    asynchronous = True

    def __init__(self, config: AtariConfig, labels: bool = False) -> None:
        """`labels`: know what AtariARI reads from the console's memory, at the price of a second emulation."""
        self._ale: Any = AtariVectorEnv(
            config.game,
            config.num_envs,
            num_threads=config.threads,
            max_num_frames_per_episode=config.max_frames,
            repeat_action_probability=config.sticky,
            full_action_space=config.full_actions,
            autoreset_mode="NextStep",
            img_height=config.size,
            img_width=config.size,
            grayscale=config.grayscale,
            stack_num=1,
            frameskip=config.frame_skip,
            noop_max=config.noop_max,
            # ALE's own life-loss flag hides whether the game ended too, so `step` counts lives itself.
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=config.fire_reset,
        )
        self._consoles: Consoles | None = None
        if labels:
            actions = self._ale.ale.get_action_set()
            self._consoles = Consoles(config.game, config.num_envs, actions, config.sticky, config.fire_reset)
        self._life_loss = config.life_loss
        self.num_envs = config.num_envs
        self.action_space = Discrete(len(self._ale.ale.get_action_set()))
        self.frame_shape = (1 if config.grayscale else 3, config.size, config.size)

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        seeds = np.random.SeedSequence(seed).generate_state(self.num_envs) >> 1  # ALE: int32, negative ignored
        obs, info = self._ale.reset(seed=seeds.astype(np.int32))
        if self._consoles:
            self._consoles.reset(seeds, info["episode_frame_number"])
        self._lives = info["lives"]
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        return self._frames(obs)

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self.step_async(action)
        return self.step_wait()

    def step_async(self, action: Actions) -> None:
        """See `VectorEnv.step_async`."""
        self._check_action(action)  # ALE would wait for ever on a bad one
        self._action = action
        self._ale.send(action.astype(np.int64))

    def step_wait(self) -> VectorStep:
        """See `VectorEnv.step_wait`."""
        obs, reward, game_ended, truncated, info = self._ale.recv()
        first, self._over = self._over, game_ended | truncated
        if self._consoles:
            self._consoles.step(self._action, first, reward, info["episode_frame_number"])
        lives, self._lives = self._lives, info["lives"]
        # Lives reaching 0 is left to the end of the game: some games play their last life at 0.
        life_lost = self._life_loss & (self._lives < lives) & (self._lives > 0) & ~first
        terminated = game_ended | life_lost
        return VectorStep(
            frame=self._frames(obs),
            reward=reward.astype(np.float32),
            terminated=terminated,
            truncated=truncated & ~terminated,
            game_over=self._over,
            first=first,
        )

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`: bytes of the console's memory, if they were asked for and the game is annotated."""
        return self._consoles.labels() if self._consoles else {}

    def close(self) -> None:
        """See `VectorEnv.close`: ends ALE's threads."""
        self._ale = None

    def _frames(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.frame_shape[0] == 1:
            return obs
        return np.ascontiguousarray(obs[:, 0].transpose(0, 3, 1, 2))  # (N, 1, H, W, 3) -> (N, 3, H, W)
