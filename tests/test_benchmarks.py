"""What a benchmark says where a package, a data set or a device is missing that it needs: one line, at its start."""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
MNIST, CLIPS = "data/mnist is missing: make mnist", "data/clips is missing: make clips"
ROBOTICS = r"env.id=FetchPush-v4 needs gymnasium_robotics, which is missing: pip install 'sidequest\[robotics\]'"
LACKING = {  # by command line
    "collect": r"ray is missing: pip install 'sidequest\[ray\]'",
    "denoising": "dm-control is missing: ",
    "dqn_speed": "cv2 is missing: pip install 'opencv",
    "env_speed": "dm-control is missing: ",
    "fetch": ROBOTICS,
    "forgery": f".*/{CLIPS}",
    "goal_spaces": "dm-control is missing: ",
    "goal_speed": "dm-control is missing: ",
    "gpu": "no CUDA device is here",
    "grasp2vec": "dm-control is missing: ",
    "grasping": "dm-control is missing: ",
    "mutation": "coverage is missing: pip install 'cosmic-ray",
    "pretext_cost": MNIST,
    "pretext_mnist": MNIST,
    "pretext_video": CLIPS,
    "rendering": "dm-control is missing: ",
    "state_pretraining": "dm-control is missing: ",
    "study_mnist": MNIST,
    "tcn world=reacher": "dm-control is missing: ",
}


def raising(error: Exception) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


@pytest.fixture(autouse=True)
def _without_traces() -> Iterator[None]:
    """Benchmarks import each other, here with folders of the test."""
    before = set(sys.modules)
    yield
    for name in sys.modules.keys() - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == BENCHMARKS:
            del sys.modules[name]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("line", LACKING)
def test_what_is_missing_is_one_line(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *words = line.split()
    monkeypatch.chdir(tmp_path)  # where there are no data
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    for variable, value in {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}.items():  # a benchmark may set them
        monkeypatch.setenv(variable, value)
    common: Any = import_module("common")
    monkeypatch.setattr(common, "find_spec", lambda _: None)
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr("envs.rendering.version", raising(PackageNotFoundError("dm-control")))
    monkeypatch.setattr("envs.gym_goal.import_module", raising(ModuleNotFoundError(name="gymnasium_robotics")))
    monkeypatch.setitem(sys.modules, "coverage", None)
    with pytest.raises(SystemExit, match=f"^error: {LACKING[line]}") as ended:
        run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    assert "\n" not in str(ended.value)
    assert not list(tmp_path.iterdir())
