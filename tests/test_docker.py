"""The container image: built where a Docker daemon answers, its Dockerfile read by a linter where npm is."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINTER = "dockerfile-utils@0.16.3"


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(not shutil.which("npx"), reason="no npx")
def test_the_dockerfile_has_no_fault() -> None:
    if run("npx", "--yes", LINTER, "--version").returncode:
        pytest.skip(f"npm does not bring {LINTER}")
    linted = run("npx", "--yes", LINTER, "lint", "Dockerfile")
    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_image_trains() -> None:
    if not shutil.which("docker") or run("docker", "info").returncode:
        pytest.skip("no Docker daemon answers")
    subprocess.run(["docker", "build", "--tag", "sidequest:test", "."], cwd=ROOT, check=True)
    words = "env=toy device=cpu steps=200 learning_starts=100 replay.capacity=200 eval_episodes=1"
    trained = run("docker", "run", "--rm", "sidequest:test", "train", *words.split())
    assert trained.returncode == 0, trained.stderr
