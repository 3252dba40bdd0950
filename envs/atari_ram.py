"""What the memory of an Atari console says about the moment on the screen."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from numpy.typing import NDArray


def _row(name: str, begin: int, count: int) -> dict[str, int]:
    return {f"{name}_{i}": begin + i for i in range(count)}


# Addresses among the 128 bytes, as found by Anand et al. 2019, "Unsupervised state representation learning in Atari".
RAM: dict[str, dict[str, int]] = {
    "boxing": {
        **{"player_x": 32, "player_y": 34, "enemy_x": 33, "enemy_y": 35},
        **{"player_score": 18, "enemy_score": 19, "clock": 17},
    },
    "breakout": {
        **{"ball_x": 99, "ball_y": 101, "player_x": 72, "blocks_hit_count": 77, "score": 84},
        **_row("block_bit_map", 0, 30),
    },
    "freeway": {"player_y": 14, "score": 103, **_row("enemy_car_x", 108, 10)},
    "ms_pacman": {
        **{"player_x": 10, "player_y": 16, "player_direction": 56, "fruit_x": 11, "fruit_y": 17},
        **{"enemy_sue_x": 6, "enemy_inky_x": 7, "enemy_pinky_x": 8, "enemy_blinky_x": 9},
        **{"enemy_sue_y": 12, "enemy_inky_y": 13, "enemy_pinky_y": 14, "enemy_blinky_y": 15},
        **{"ghosts_count": 19, "dots_eaten_count": 119, "player_score": 120, "num_lives": 123},
    },
    "pong": {
        **{"player_x": 46, "player_y": 51, "enemy_x": 45, "enemy_y": 50, "ball_x": 49, "ball_y": 54},
        **{"player_score": 14, "enemy_score": 13},
    },
    "seaquest": {
        **{"player_x": 70, "player_y": 97, "player_direction": 86, "oxygen_meter_value": 102},
        **{"player_missile_x": 103, "player_missile_direction": 87, "divers_collected_count": 62, "num_lives": 59},
        **_row("enemy_obstacle_x", 30, 4),
        **_row("diver_or_enemy_missile_x", 71, 4),
        **_row("score", 57, 2),
    },
    "space_invaders": {
        **{"player_x": 28, "enemies_x": 26, "enemies_y": 24, "missiles_y": 9},
        **{"invaders_left_count": 17, "player_score": 104, "num_lives": 73},
    },
}


class Consoles:
    """Plays the games of an `AtariVectorEnv` along, since it shows no memory: same seeds, same actions, same games.

    It is told how many frames each game has had, and so needs to know nothing of no-ops, frame skips and time limits.
    At the end of a game ALE gives the picture of up to four frames before; the memory is that of the end.
    """

    def __init__(self, game: str, num_envs: int, actions: Sequence[Action], sticky: float, fire_reset: bool) -> None:
        self._actions, self._names = actions, RAM.get(game, {})
        self._rom: Any = roms.get_rom_path(game)
        self._fire = fire_reset and Action.FIRE in actions
        self._ales = [ALEInterface() for _ in range(num_envs)]
        for ale in self._ales:
            ale.setLoggerMode(LoggerMode.Error)
            ale.setFloat("repeat_action_probability", sticky)

    def reset(self, seeds: NDArray[Any], frames: NDArray[Any]) -> None:
        """Start a game in each copy: (N,) seeds as ALE got them, and frames played before the first observation."""
        for ale, seed, frame in zip(self._ales, seeds, frames, strict=True):
            ale.setInt("random_seed", int(seed))
            ale.loadROM(self._rom)
            self._begin(ale, frame)

    def step(self, action: NDArray[Any], first: NDArray[np.bool_], reward: NDArray[Any], frames: NDArray[Any]) -> None:
        """Follow one step of the vector; `frames` (N,) as in `reset`, now.

        Raises:
            RuntimeError: the games are not the same.
        """
        for i, ale in enumerate(self._ales):
            points = 0
            if first[i]:
                self._begin(ale, frames[i])
            else:
                points = self._hold(ale, self._actions[action[i]], frames[i])
            if points != reward[i] or ale.getEpisodeFrameNumber() != frames[i]:
                raise RuntimeError(f"the memory of Atari copy {i} is of another game: {points} points, not {reward[i]}")

    def labels(self) -> dict[str, NDArray[np.uint8]]:
        """The named bytes (N,) of a game that is annotated."""
        ram = np.stack([ale.getRAM() for ale in self._ales])
        return {name: ram[:, address] for name, address in self._names.items()}

    def _begin(self, ale: ALEInterface, frame: int) -> None:
        ale.reset_game()
        if self._fire:
            ale.act(Action.FIRE)
        self._hold(ale, Action.NOOP, frame)

    def _hold(self, ale: ALEInterface, action: Action, frame: int) -> int:
        """The points until frame `frame` of the game."""
        return sum(ale.act(action) for _ in range(frame - ale.getEpisodeFrameNumber()))
