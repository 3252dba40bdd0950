import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from envs import DmcConfig, rendering


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def working(*backends: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tried: list[str] = []

    def run(command: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        assert env["MUJOCO_GL"] == env["PYOPENGL_PLATFORM"]
        tried.append(env["MUJOCO_GL"])
        return SimpleNamespace(returncode=0 if tried[-1] in backends else 1)

    monkeypatch.setattr(rendering.subprocess, "run", run)
    return tried


@pytest.mark.parametrize(("works", "tried"), [("egl", ["egl"]), ("osmesa", ["egl", "osmesa"])])
def test_the_first_that_works_is_taken(works: str, tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = working(works, monkeypatch=monkeypatch)
    rendering.choose_backend()
    assert seen == tried
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == works


def test_the_users_choice_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = working(monkeypatch=monkeypatch)
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    rendering.choose_backend()
    assert (tried, os.environ["MUJOCO_GL"], "PYOPENGL_PLATFORM" in os.environ) == ([], "glfw", False)


def test_without_opengl_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    working(monkeypatch=monkeypatch)
    with pytest.raises(RuntimeError, match=r"apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri \(or libosmesa6"):
        DmcConfig().build()


def test_a_library_that_is_not_there_is_one_line() -> None:
    script = "from envs import *\ntry: DmcConfig().build()\nexcept RuntimeError as error: print(error)"
    run = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"MUJOCO_GL": "osmesa"}, capture_output=True, text=True
    )
    if "drawn by" in run.stderr:
        pytest.skip("OSMesa is installed here")
    assert run.stdout.startswith("MUJOCO_GL=osmesa fails (")
    assert run.stdout.endswith(f"{rendering.PACKAGES}\n")
    assert run.stdout.count("\n") == 1


@pytest.mark.parametrize("installed", ["3.16.9", "4.0.0", "2.3"])
def test_a_mujoco_that_does_not_fit_is_named(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "version", lambda name: installed)
    with pytest.raises(RuntimeError, match=rf"mujoco {installed}: pip install 'mujoco>=3.17,<4'"):
        rendering.load_suite()


def test_a_missing_dm_control_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rendering, "version", version)
    with pytest.raises(RuntimeError, match=r"^dm-control is missing: pip install 'dm-control"):
        rendering.load_suite()


def test_importing_envs_and_making_a_config_does_not_load_mujoco() -> None:
    script = "import sys, envs; envs.DmcConfig(); assert not {'mujoco', 'dm_control', 'OpenGL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_nothing_is_told_at_the_end_and_one_line_at_the_start() -> None:
    script = (
        "import logging, envs; logging.basicConfig(level=logging.INFO, format='%(message)s');"
        "env = envs.DmcConfig(num_envs=2).build(); env.reset(0); env.close(); env.close();"
        "left_open = envs.DmcConfig().build()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    lines = run.stderr.splitlines()
    assert (run.returncode, run.stdout, len(lines)) == (0, "", 2), run.stderr
    assert lines[0].startswith("cartpole swingup: fast quality, drawn by ")
