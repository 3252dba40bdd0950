"""What the memory of an Atari console says about the moment on the screen."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from numpy.typing import NDArray

from envs.base import EnvError


def _row(name: str, addresses: Iterable[int]) -> dict[str, int]:
    return {f"{name}_{i}": address for i, address in enumerate(addresses)}


# Addresses among the 128 bytes, as found by Anand et al. 2019, "Unsupervised state representation learning in Atari";
# the names are theirs in snake case, so that scores can be compared one by one.
RAM: dict[str, dict[str, int]] = {
    "asteroids": {
        **{"player_x": 73, "player_y": 74, "player_score_high": 61, "player_score_low": 62, "num_lives_direction": 60},
        **{"player_missile_x1": 83, "player_missile_y1": 86, "player_missile1_direction": 89},
        **{"player_missile_x2": 84, "player_missile_y2": 87, "player_missile2_direction": 90},
        **_row("enemy_asteroids_x", [*range(21, 28), *range(30, 38)]),
        **_row("enemy_asteroids_y", [*range(3, 10), *range(12, 20)]),
    },
    "battle_zone": {
        **{"blue_tank_x": 48, "blue_tank_size_y": 47, "blue_tank_facing_direction": 46},
        **{"blue_tank2_x": 54, "blue_tank2_size_y": 53, "blue_tank2_facing_direction": 52},
        **{"angle_of_tank": 4, "left_tread_position": 59, "right_tread_position": 60, "compass_needles_angle": 84},
        **{"missile_y": 105, "crosshairs_color": 108, "score": 29, "num_lives": 58},
    },
    "berzerk": {
        **{"player_x": 19, "player_y": 11, "player_direction": 14, "num_lives": 90, "game_level": 92},
        **{"player_missile_x": 22, "player_missile_y": 23, "player_missile_direction": 21},
        **{"robot_missile_x": 29, "robot_missile_y": 30, "robot_missile_direction": 26, "robots_killed_count": 91},
        **{"enemy_evil_otto_x": 46, "enemy_evil_otto_y": 89},
        **_row("enemy_robots_x", range(65, 73)),
        **_row("enemy_robots_y", range(56, 65)),
        **_row("player_score", range(93, 96)),
    },
    "bowling": {
        **{"ball_x": 30, "ball_y": 41, "player_x": 29, "player_y": 40, "frame_number_display": 36, "score": 33},
        **_row("pin_existence", range(57, 67)),
    },
    "boxing": {
        **{"player_x": 32, "player_y": 34, "enemy_x": 33, "enemy_y": 35},
        **{"player_score": 18, "enemy_score": 19, "clock": 17},
    },
    "breakout": {
        **{"ball_x": 99, "ball_y": 101, "player_x": 72, "blocks_hit_count": 77, "score": 84},
        **_row("block_bit_map", range(30)),
    },
    "demon_attack": {
        **{"player_x": 22, "missile_y": 21, "level": 62, "num_lives": 114},
        **{"enemy_x1": 17, "enemy_x2": 18, "enemy_x3": 19, "enemy_y1": 69, "enemy_y2": 70, "enemy_y3": 71},
    },
    "freeway": {"player_y": 14, "score": 103, **_row("enemy_car_x", range(108, 118))},
    "frostbite": {
        **{"player_x": 102, "player_y": 100, "player_direction": 4, "enemy_bear_x": 104, "num_lives": 76},
        **{"top_row_iceflow_x": 34, "second_row_iceflow_x": 33, "third_row_iceflow_x": 32, "fourth_row_iceflow_x": 31},
        **{"igloo_blocks_count": 77, **_row("enemy_x", range(84, 88)), **_row("score", range(72, 75))},
    },
    "hero": {
        **{"player_x": 27, "player_y": 31, "power_meter": 43, "dynamite_count": 50},
        **{"room_number": 28, "level_number": 117, **_row("score", range(56, 58))},
    },
    "montezuma_revenge": {
        **{"player_x": 42, "player_y": 43, "player_direction": 52, "items_in_inventory_count": 61, "num_lives": 58},
        **{"enemy_skull_x": 47, "enemy_skull_y": 46, "key_monster_x": 44, "key_monster_y": 45},
        **{"room_number": 3, "room_state": 62, "level": 57, **_row("score", range(19, 22))},
    },
    "ms_pacman": {
        **{"player_x": 10, "player_y": 16, "player_direction": 56, "fruit_x": 11, "fruit_y": 17},
        **{"enemy_sue_x": 6, "enemy_inky_x": 7, "enemy_pinky_x": 8, "enemy_blinky_x": 9},
        **{"enemy_sue_y": 12, "enemy_inky_y": 13, "enemy_pinky_y": 14, "enemy_blinky_y": 15},
        **{"ghosts_count": 19, "dots_eaten_count": 119, "player_score": 120, "num_lives": 123},
    },
    "pitfall": {
        **{"player_x": 97, "player_y": 105, "enemy_logs_x": 98, "enemy_scorpion_x": 99, "bottom_of_rope_y": 18},
        **{"clock_min": 88, "clock_sec": 89},
    },
    "pong": {
        **{"player_x": 46, "player_y": 51, "enemy_x": 45, "enemy_y": 50, "ball_x": 49, "ball_y": 54},
        **{"player_score": 14, "enemy_score": 13},
    },
    "private_eye": {
        **{"player_x": 63, "player_y": 86, "player_direction": 58, "dove_x": 48, "dove_y": 39, "room_number": 92},
        **_row("clock", [67, 69]),
        **_row("score", range(73, 75)),
    },
    "qbert": {
        **{"player_x": 43, "player_y": 67, "player_column": 35, "red_enemy_column": 69, "green_enemy_column": 105},
        # row by row of the pyramid, from its top
        **_row("tile_color", [21, 52, 54, *range(83, 88, 2), *range(98, 105, 2), *range(1, 10, 2), *range(32, 43, 2)]),
        **_row("score", range(89, 92)),
    },
    "riverraid": {"player_x": 51, "missile_x": 117, "missile_y": 50, "fuel_meter_high": 55, "fuel_meter_low": 56},
    "seaquest": {
        **{"player_x": 70, "player_y": 97, "player_direction": 86, "oxygen_meter_value": 102},
        **{"player_missile_x": 103, "player_missile_direction": 87, "divers_collected_count": 62, "num_lives": 59},
        **_row("enemy_obstacle_x", range(30, 34)),
        **_row("diver_or_enemy_missile_x", range(71, 75)),
        **_row("score", range(57, 59)),
    },
    "skiing": {
        **{"player_x": 25, "clock_m": 104, "clock_s": 105, "clock_ms": 106, "score": 107},
        **_row("object_y", range(87, 94)),
    },
    "space_invaders": {
        **{"player_x": 28, "enemies_x": 26, "enemies_y": 24, "missiles_y": 9},
        **{"invaders_left_count": 17, "player_score": 104, "num_lives": 73},
    },
    "tennis": {
        **{"player_x": 26, "player_y": 24, "enemy_x": 27, "enemy_y": 25, "ball_x": 16, "ball_y": 17},
        **{"player_score": 69, "enemy_score": 70},
    },
    "venture": {
        **{"player_x": 85, "player_y": 26, "current_room": 90, "num_lives": 70, "score_1_2": 71, "score_3_4": 72},
        **{f"sprite{i}_x": 79 + i for i in range(6)},
        **{f"sprite{i}_y": 20 + i for i in range(6)},
    },
    "video_pinball": {
        **{"ball_x": 67, "ball_y": 68, "player_left_paddle_y": 98, "player_right_paddle_y": 102},
        **{"score_1": 48, "score_2": 50},
    },
    "yars_revenge": {
        **{"player_x": 32, "player_y": 31, "player_missile_x": 38, "player_missile_y": 37},
        **{"enemy_x": 43, "enemy_y": 42, "enemy_missile_x": 47, "enemy_missile_y": 46},
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
                raise EnvError(f"the memory of Atari copy {i} is of another game: {points} points, not {reward[i]}")

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
