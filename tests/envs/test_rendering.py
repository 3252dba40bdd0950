import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any

import pytest

from envs import DmcConfig, rendering


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_working", set())
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)


def working(*backends: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    tried: list[str] = []

    def run(command: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        assert env.get("PYOPENGL_PLATFORM", env["MUJOCO_GL"]) == env["MUJOCO_GL"]
        tried.append(env["MUJOCO_GL"])
        return SimpleNamespace(returncode=0 if tried[-1] in backends else 1, stderr="Traceback\nno display\n")

    monkeypatch.setattr(rendering.subprocess, "run", run)
    return tried


@pytest.mark.parametrize(
    ("chosen", "works", "tried", "platform"),
    [(None, "egl", ["egl"], "egl"), (None, "osmesa", ["egl", "osmesa"], "osmesa"), ("glfw", "glfw", ["glfw"], None)],
)
def test_the_users_choice_or_the_first_that_works(
    chosen: str | None, works: str, tried: list[str], platform: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = working(works, monkeypatch=monkeypatch)
    if chosen:
        monkeypatch.setenv("MUJOCO_GL", chosen)
    for _ in range(2):  # once a process is enough
        rendering.choose_backend()
    assert (seen, os.environ["MUJOCO_GL"], os.environ.get("PYOPENGL_PLATFORM")) == (tried, works, platform)


@pytest.mark.parametrize("chosen", ["glfw", "osmesa", "nonsense"])
def test_a_choice_of_the_user_that_does_not_work_is_named(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    working("egl", monkeypatch=monkeypatch)
    monkeypatch.setenv("MUJOCO_GL", chosen)
    with pytest.raises(RuntimeError, match=rf"^MUJOCO_GL={chosen} fails \(no display\): unset it, or apt-get"):
        DmcConfig().build()


def test_without_opengl_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    working(monkeypatch=monkeypatch)
    with pytest.raises(RuntimeError, match=r"apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri \(or libosmesa6"):
        DmcConfig().build()


def python(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], env=os.environ | env, capture_output=True, text=True)


def test_a_library_that_is_not_there_is_one_line() -> None:
    script = "from envs import *\ntry: DmcConfig().build()\nexcept RuntimeError as error: print(error)"
    run = python(script, MUJOCO_GL="osmesa")
    if "drawn by" in run.stderr:
        pytest.skip("OSMesa is installed here")
    assert run.stdout.startswith("MUJOCO_GL=osmesa fails (")
    assert run.stdout.endswith(f"{rendering.PACKAGES}\n")
    assert run.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("installed", "python", "message"),
    [
        ("3.16.9", (3, 12), "mujoco 3.16.9: pip install 'mujoco>=3.17,<4'"),
        ("4.0.0", (3, 12), "mujoco 4.0.0: pip install 'mujoco>=3.17,<4'"),
        ("2.3", (3, 14), "mujoco 2.3: pip install 'mujoco>=3.17,<4'"),
        (None, (3, 11), "^dm-control is missing: pip install 'dm-control"),
        (None, (3, 12), "^dm-control is missing: pip install 'dm-control"),
        (None, (3, 13), "^dm-control is missing: .*labmaze has no release past Python 3.12"),
    ],
)
def test_packages_that_do_not_fit_are_named(
    installed: str | None, python: tuple[int, int], message: str, monkeypatch: Any
) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(rendering, "version", version)
    monkeypatch.setattr(sys, "version_info", python)
    with pytest.raises(RuntimeError, match=message):
        rendering.load_suite()


def test_mujoco_is_loaded_for_copies_alone_which_tell_one_line_in_all() -> None:
    run = python(
        "import logging, sys, envs; logging.basicConfig(level=logging.INFO, format='%(message)s');"
        "config = envs.DmcConfig(num_envs=2); assert not {'mujoco', 'dm_control', 'OpenGL'} & set(sys.modules);"
        "env = config.build(); env.reset(0); env.close(); env.close(); left_open = envs.DmcConfig().build()"
    )
    lines = run.stderr.splitlines()
    assert (run.returncode, run.stdout, len(lines)) == (0, "", 1), run.stderr
    assert lines[0].startswith("cartpole swingup: fast quality, drawn by ")
