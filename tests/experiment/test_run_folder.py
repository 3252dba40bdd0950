"""What a run finds in its folder and does not follow."""

import os
from pathlib import Path

import pytest
import run_help

from experiment.run_folder import claim_run_dir

PLACES = (
    "metrics.jsonl", ".lock", "config.yaml", "agent.safetensors", "report.json", "game.mp4", "pictures",
    "projector_config.pbtxt", "pictures/rotation-120.png", "attribution/moment_0.png",
)  # fmt: skip


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "link to a folder", "pipe"])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_in_the_folder_leads_out_of_it(tmp_path: Path, place: str, kind: str) -> None:
    outside, path = tmp_path / "outside", tmp_path / "run" / place
    path.parent.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)
    if kind == "link to a file":
        outside.write_text("mine")
    if kind == "link to a folder":
        outside.mkdir()
    with pytest.raises(ValueError, match=f"{path} is a"), claim_run_dir(run_help.small(tmp_path / "run")):
        pass
    assert outside.exists() == (kind in ("link to a file", "link to a folder"))
    assert kind != "link to a file" or outside.read_text() == "mine"
    assert kind != "link to a folder" or not list(outside.iterdir())


def test_checkpoints_may_lie_on_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "disk")
    with claim_run_dir(run_help.small(tmp_path / "run")) as run_dir:
        assert (run_dir / "config.yaml").is_file()
