from pathlib import Path

import pytest
import run_help
from PIL import Image

from agents import SACConfig
from agents.config import Svea
from encoders import EncoderConfig
from envs import DmcConfig, EnvConfig, PointMassConfig, PusherConfig
from envs.distractors import split_files
from experiment.training.build import build
from experiment.training.overlays import read_overlays


def test_pictures_are_read_and_none_may_be_a_background_of_the_evaluation(tmp_path: Path) -> None:
    for folder in ("behind", "mixed"):
        (tmp_path / folder).mkdir()
        for i in range(6):
            level = 10 * i + 5 * (folder == "mixed")
            Image.new("RGB", (20, 30), (level, 0, 0)).save(tmp_path / folder / f"{i}.png")
    agent = SACConfig(svea=Svea.overlay, overlay_folder=str(tmp_path / "mixed"))
    env = DmcConfig(background="images", background_folder=str(tmp_path / "behind"))
    config = run_help.small(tmp_path, agent=agent, env=env)
    pictures = read_overlays(config, 12)
    assert pictures is not None
    assert pictures.shape == (6, 3, 12, 12)
    assert pictures[:, 0].amax((1, 2)).tolist() == [5, 15, 25, 35, 45, 55]
    kept = split_files(tmp_path / "behind", "images")["eval"][0]
    (tmp_path / "mixed" / "again.png").write_bytes(kept.read_bytes())
    with pytest.raises(
        ValueError, match=rf"overlay_folder: .*again.png is .*{kept.name}, one of the backgrounds of eval"
    ):
        read_overlays(config, 12)
    assert read_overlays(run_help.small(tmp_path), 12) is None


@pytest.mark.parametrize("env", [PointMassConfig(grayscale=True, size=36), PusherConfig(observe="state")])
def test_svea_needs_colours(env: EnvConfig, tmp_path: Path) -> None:
    encoder = EncoderConfig("state" if isinstance(env, PusherConfig) else "small")
    agent = SACConfig(svea=Svea.random_conv)
    config = run_help.small(tmp_path, agent=agent, env=env, encoder=encoder, frame_stack=3, aux={})
    with pytest.raises(ValueError, match=r"agent.svea changes colours"):
        build(config)
