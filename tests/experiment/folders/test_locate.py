"""Where `zoo/...` is."""

from pathlib import Path

import pytest

from experiment.folders.zoo import locate

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("zoo/pong-dqn", ROOT / "zoo/pong-dqn"),
        ("./zoo/pong-dqn", ROOT / "zoo/pong-dqn"),
        ("zoo/mine", Path("zoo/mine")),  # there is one here
        ("runs/zoo/pong-dqn", Path("runs/zoo/pong-dqn")),
        ("/zoo/pong-dqn", Path("/zoo/pong-dqn")),
        ("zoologist", Path("zoologist")),
    ],
)
def test_the_zoo_is_found_from_any_folder_and_gives_way_to_what_is_there(
    path: str, found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo/mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate(path) == found
