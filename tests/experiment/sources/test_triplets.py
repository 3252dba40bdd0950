"""Triplets: recorded of the grasping world, or a user's own folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.sources import TripletsConfig
from datasets.triplets import MEMBERS
from envs import GraspingConfig, ToyConfig
from experiment.sources.build import build_source

ENV = GraspingConfig(num_envs=4, size=32)


def recorded(folder: Path, grasps: int = 30, seed: int = 0, **env: Any) -> Any:
    return build_source(TripletsConfig(grasps, path=str(folder)), GraspingConfig(**{"num_envs": 4, **env}), seed)


def test_a_recording_holds_what_lay_there_and_what_was_taken(tmp_path: Path) -> None:
    episodes = recorded(tmp_path / "a")
    before, after, outcome = episodes.views.swapaxes(0, 1).astype(float)
    assert episodes.views.shape == (30, 3, 3, 64, 64)
    np.testing.assert_array_equal(episodes.frames, before)
    assert len(np.unique(episodes.labels["object"])) > 10
    assert np.ptp(outcome, axis=(2, 3)).max(1).min() > 60  # none is empty
    x, y = (episodes.labels[name].astype(int) for name in "xy")
    row = np.arange(30)

    def stands_out(scene: np.ndarray) -> np.ndarray:
        return np.abs(scene[row, :, y, x] - np.median(scene, axis=(2, 3))).max(1) > 15

    assert stands_out(before).mean() > 0.8
    assert stands_out(after).mean() < 0.3  # another one has moved there
    again = recorded(tmp_path / "b")
    assert again.fingerprint == episodes.fingerprint
    assert recorded(tmp_path / "c", seed=1).fingerprint != episodes.fingerprint


def test_a_recording_is_used_again_and_only_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = recorded(tmp_path / "a")
    monkeypatch.setattr("experiment.sources.build.record_triplets", lambda *_: pytest.fail("recorded again"))
    assert recorded(tmp_path / "a").fingerprint == episodes.fingerprint
    with pytest.raises(ValueError, match=r"recorded with env.split=seen, this one has unseen: give source.path"):
        recorded(tmp_path / "a", split="unseen")
    with pytest.raises(ValueError, match=r"records env=grasping, not env=toy; source.folder="):
        build_source(TripletsConfig(), ToyConfig(), 0)


def own_folder(folder: Path, places: list[str], without: str = "") -> Path:
    rng = np.random.default_rng(0)
    for place in places:
        (folder / place).mkdir(parents=True)
        for name in MEMBERS:
            if f"{place}/{name}" != without:
                picture = rng.integers(256, size=(20, 30, 3), dtype=np.uint8)
                Image.fromarray(picture).save(folder / place / f"{name}.png")
    return folder


def of_folder(folder: Path) -> Any:
    return build_source(TripletsConfig(folder=str(folder), size=20), ENV, 0)


@pytest.mark.parametrize("above", ["", "cup/"])
def test_a_folder_of_ones_own(tmp_path: Path, above: str) -> None:
    places = [f"{above}{name}" for name in ("a", "b", "c")]
    episodes = of_folder(own_folder(tmp_path, places))
    assert episodes.views.shape == (3, 3, 3, 20, 20)
    assert episodes.names.tolist() == places
    assert (set(episodes.labels), above) in (({"object"}, "cup/"), (set(), ""))
    for i, place in enumerate(places):
        for v, name in enumerate(MEMBERS):
            kept = np.asarray(Image.open(tmp_path / place / f"{name}.png"))[:, 5:25]
            np.testing.assert_array_equal(episodes.views[i, v], kept.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("places", "without", "message"),
    [
        (["a", "b"], "b/after", r"b has no after\.png: a grasp is before\.png, after\.png and outcome\.png"),
        (["a", "cup/b"], "", r"must all lie in folder/grasp/ or in folder/object/grasp/"),
        (["a/b/c"], "", r"must all lie in folder/grasp/"),
        ([], "", r"is not a folder"),
    ],
)
def test_a_folder_that_lacks_something_is_one_line(
    tmp_path: Path, places: list[str], without: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        of_folder(own_folder(tmp_path / "own", places, without))
    assert "\n" not in str(error.value)
