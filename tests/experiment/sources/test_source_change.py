"""A run resumes from the source that it learned from, and from no other."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from source_help import TOY, frames, idx_folder, image_folder, pretraining, video_folder

import pretrain as script
from configs.schema import ProbeConfig
from configs.sources import BallsConfig, IdxConfig, ImagesConfig, VideosConfig
from experiment.pretraining.run import load_pretraining
from experiment.probing.build import build_probing
from experiment.sources.build import build_source, describe_source, save_source, source_change
from harness.checkpoint import save

SMALL = {
    "images": lambda folder: ImagesConfig(str(image_folder(folder)), 8),
    "videos": lambda folder: VideosConfig(str(video_folder(folder)), 8),
    "idx": lambda folder: IdxConfig(str(idx_folder(folder))),
    "frames": frames,
}


def new_image(folder: Path, name: str = "new") -> None:
    Image.new("RGB", (40, 40)).save(folder / f"a/group_0/{name}.png")


def change_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("images", new_image),
        ("images", lambda folder: new_image(folder, "0")),
        ("images", lambda folder: (folder / "a/group_0").rename(folder / "a/group_9")),
        ("videos", lambda folder: (folder / "0.mp4").unlink()),
        ("idx", lambda folder: change_last_byte(folder / "train-images-idx3-ubyte")),
        ("idx", lambda folder: change_last_byte(folder / "t10k-labels-idx1-ubyte")),
        ("frames", lambda folder: change_last_byte(folder / "frames/reward.npy")),
        ("frames", lambda folder: change_last_byte(folder / "frames/frames.npy")),
    ],
)
def test_a_run_resumes_from_the_same_source_only(kind: str, change: Any, tmp_path: Path) -> None:
    run, source = tmp_path / "run", SMALL[kind](tmp_path / "d")
    save_source(run, describe_source(build_source(source, TOY, 0)))
    save(run / "checkpoints", 1, {"parts": {}})
    save_source(run, describe_source(build_source(source, TOY, 0)))
    change(tmp_path / "d")
    with pytest.raises(ValueError, match=r"run learned from another source .*give run_dir=") as error:
        save_source(run, describe_source(build_source(source, TOY, 0)))
    assert "\n" not in str(error.value)


def test_a_run_that_has_learned_nothing_takes_the_new_source(tmp_path: Path) -> None:
    source = SMALL["images"](tmp_path / "d")
    save_source(tmp_path / "run", describe_source(build_source(source, TOY, 0)))
    new_image(tmp_path / "d")
    assert source_change(tmp_path / "run", describe_source(build_source(source, TOY, 0))).startswith(
        "frames 12, now 13"
    )
    save_source(tmp_path / "run", describe_source(build_source(source, TOY, 0)))
    assert source_change(tmp_path / "run", describe_source(build_source(source, TOY, 0))) == ""


@pytest.mark.parametrize(("kind", "same"), [("images", False), ("videos", False), ("idx", True), ("frames", True)])
def test_a_run_of_an_earlier_version_resumes_where_its_split_is_the_same(kind: str, same: bool, tmp_path: Path) -> None:
    save(tmp_path / "run/checkpoints", 1, {"parts": {}})
    found = describe_source(build_source(SMALL[kind](tmp_path / "d"), TOY, 0))
    if same:
        save_source(tmp_path / "run", found)
    else:
        with pytest.raises(ValueError, match=r"run learned from another source \(its files were split"):
            save_source(tmp_path / "run", found)


@pytest.mark.parametrize("content", ["", "[]", "null", "5", "[" * 100_000, "{}"])
def test_a_damaged_description_is_one_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "source.json").write_text(content)
    save(tmp_path / "checkpoints", 1, {"parts": {}})
    with pytest.raises(ValueError, match=r"source\.json cannot be read|learned from another source") as error:
        save_source(tmp_path, describe_source(build_source(BallsConfig(episodes=4), TOY, 0)))
    assert "\n" not in str(error.value)


def test_a_changed_folder_of_images_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    run, source = Path("runs/r"), ImagesConfig(str(image_folder(tmp_path / "d")), 32)
    config = pretraining(source, run, "rotation")
    assert script.pretrain(config) == script.pretrain(replace(config, steps=4)) == 0
    probe = ProbeConfig(str(run), {}, labels=["class"], device="cpu")
    uses = [
        lambda: build_probing(probe),
        lambda: build_probing(replace(probe, source=ImagesConfig("d", 32))),
        lambda: load_pretraining(run),
    ]
    for use in uses:
        use()
    assert "has changed" not in caplog.text
    new_image(tmp_path / "d")
    for use in uses:
        caplog.clear()
        use()
        assert "r: the source has changed since (frames 12, now 13, episodes 12, now 13)" in caplog.text
    with pytest.raises(ValueError, match="learned from another source"):
        script.pretrain(replace(config, steps=5))
