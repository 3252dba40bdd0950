"""The memory of Atari consoles: it belongs to the games that ALE's vector plays, and to the moment on the screen."""

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from ale_py import Action, ALEInterface, roms

from envs import AtariConfig, AtariVector, atari_games
from envs.atari_ram import RAM, Consoles

FRAMES = 120  # of emulation, until a game is cut


class Watched(Consoles):
    """Keeps the last two screens of each console."""

    def _hold(self, ale: ALEInterface, action: Action, frame: int) -> int:
        points = 0
        self.screens = getattr(self, "screens", {})
        two = [np.zeros((210, 160, 1), np.uint8), ale.getScreenGrayscale()]
        for _ in range(frame - ale.getEpisodeFrameNumber()):
            points += ale.act(action)
            two = [two[1], ale.getScreenGrayscale()]
        self.screens[self._ales.index(ale)] = two
        return points


@pytest.mark.parametrize(
    ("game", "changes"),
    [("breakout", {"sticky": 0.25}), ("pong", {"noop_max": 0, "fire_reset": False}), ("boxing", {"frame_skip": 2})],
)
def test_the_consoles_show_the_frames_of_the_vector(
    game: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("envs.atari.Consoles", Watched)
    config = replace(AtariConfig(game=game, num_envs=2, max_frames=FRAMES), **changes)
    env, plain = AtariVector(config, labels=True), AtariVector(config)
    frame, games, rng = env.reset(3), 0, np.random.default_rng(0)
    np.testing.assert_array_equal(frame, plain.reset(3))

    def shown(i: int, first: bool) -> np.ndarray:
        two = env._consoles.screens[i]  # type: ignore[union-attr]
        screen = two[1] if first else np.maximum(*two)
        return cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA)

    for i in range(2):
        np.testing.assert_array_equal(frame[i, 0], shown(i, first=True))
    for _ in range(2 * FRAMES // config.frame_skip + 20):
        action = rng.integers(env.action_space.n, size=2)
        step, same = env.step(action), plain.step(action)
        np.testing.assert_array_equal(step.frame, same.frame)
        games += int(step.first.sum())
        for i in np.flatnonzero(~step.game_over):  # ALE's last picture of a game is an older one
            np.testing.assert_array_equal(step.frame[i, 0], shown(i, step.first[i]))
    assert games >= 4


def test_labels_tell_where_things_are() -> None:
    env = AtariVector(AtariConfig(game="pong", num_envs=1, frame_skip=1), labels=True)
    frame, rng, seen = env.reset(0), np.random.default_rng(0), []
    for t in range(120):
        labels = env.labels()
        paddle = np.flatnonzero(frame[0, 0, 14:77, 74:76].max(1) > 120)  # the player's column, inside the court
        if len(paddle) and labels["player_y"][0]:
            seen.append((paddle.mean(), labels["player_y"][0]))
        frame = env.step(np.full(1, rng.integers(6)) if t % 8 == 0 else np.array([2 + (t // 30) % 2])).frame
    picture, memory = np.array(seen).T
    assert len(seen) > 60
    assert memory.std() > 10
    assert np.corrcoef(picture, memory)[0, 1] > 0.99


def played(game: str, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Screens (T, 210, 160) of colour numbers and memories (T, 128) of random play, every third frame."""
    ale, rng, seen = ALEInterface(), np.random.default_rng(0), []
    ale.setInt("random_seed", 1)
    ale.loadROM(roms.get_rom_path(game))
    actions = ale.getMinimalActionSet()
    for t in range(frames):
        if ale.game_over():
            ale.reset_game()
        if t % 6 == 0:
            action = rng.choice(actions)
        ale.act(action)
        if t % 3 == 0:
            seen.append((ale.getScreen(), ale.getRAM()))
    screens, memories = zip(*seen, strict=True)
    return np.stack(screens), np.stack(memories)


@pytest.mark.parametrize(
    ("game", "name", "colour", "axis"),
    [
        ("hero", "player_x", 152, 1),
        ("hero", "player_y", 152, 0),
        ("montezuma_revenge", "enemy_skull_x", 14, 1),
        ("pitfall", "player_x", 74, 1),
        ("private_eye", "player_x", 22, 1),
        ("skiing", "player_x", 72, 1),
    ],
)
def test_labels_are_the_places_of_coloured_things(game: str, name: str, colour: int, axis: int) -> None:
    screens, memories = played(game, 900)
    there = screens == colour
    shown = there.any((1, 2))
    place = [np.nonzero(picture)[axis].mean() for picture in there[shown]]
    moving = np.flatnonzero(np.ptp(memories[shown], 0))
    likeness = {address: abs(np.corrcoef(place, memories[shown, address])[0, 1]) for address in moving}
    assert shown.sum() > 200
    assert max(likeness, key=likeness.__getitem__) == RAM[game][name]  # of all that changes in the memory
    assert max(likeness.values()) > 0.99


@pytest.mark.parametrize("game", RAM)
def test_the_labels_of_every_game_move(game: str) -> None:
    memories = played(game, 300)[1]
    assert sum(len(np.unique(memories[:, address])) > 1 for address in RAM[game].values()) >= 3


def test_another_game_is_noticed() -> None:
    env = AtariVector(AtariConfig(game="pong", num_envs=1), labels=True)
    env.reset(0)
    assert env._consoles is not None
    for _ in range(5):
        env._consoles._ales[0].act(0)
    with pytest.raises(RuntimeError, match="memory of Atari copy 0 is of another game"):
        env.step(np.array([0]))


def test_annotated_games_have_labels_and_others_have_none() -> None:
    assert len(RAM.keys() & set(atari_games())) == len(RAM) == 24
    assert all(0 <= address < 128 for names in RAM.values() for address in names.values())
    for game, names in {"freeway": RAM["freeway"].keys(), "alien": {}.keys()}.items():
        env = AtariVector(AtariConfig(game=game, num_envs=2, noop_max=0), labels=True)
        env.reset(0)
        assert env.labels().keys() == names
        assert {value.shape for value in env.labels().values()} <= {(2,)}
    assert AtariVector(AtariConfig(num_envs=1)).labels() == {}
