"""The wheel: one package with one command, whatever else is installed; in a checkout the same names."""

import os
import re
import runpy
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from test_recipes import RECIPES, SHORT

ROOT = Path(__file__).parents[1]
OWN = ["train", "evaluate", *{path.parent.name for path in ROOT.glob("*/__init__.py")} - {"sidequest"}]

Command = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def sidequest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command, in a folder of its own, beside packages that have the names of ours and must not be imported."""
    venv, folder = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    python = venv / "bin/python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)}))
    # What is installed beside this Python, without the checkout that its own .pth files name.
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n" + sysconfig.get_path("platlib"))
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True)
    for name in OWN:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("raise ImportError('not of Sidequest')\n")
    (site / "mine.py").write_text("from sidequest.encoders import ENCODERS\nENCODERS['of_mine'] = ENCODERS['small']\n")
    (site / "mine-1.dist-info").mkdir()
    (site / "mine-1.dist-info/entry_points.txt").write_text("[sidequest]\nmine = mine\n")
    for file, code, *_ in RECIPES:
        (folder / file).write_text(code)

    def run(*words: str, program: str = "sidequest") -> str:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "200"}
        command = [str(venv / "bin" / program), *words]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        return f"{done.returncode} {done.stdout}{done.stderr}"

    return run


def test_the_wheel_holds_one_package_with_presets_and_zoo(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"sidequest"}
    data = [*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("zoo/*/*.safetensors"), *ROOT.glob("zoo/*/config.yaml")]
    assert {f"sidequest/{path.relative_to(ROOT)}" for path in data} <= set(names)


EVERYTHING = """
from importlib import import_module
from pkgutil import walk_packages
import sidequest
for module in walk_packages(sidequest.__path__, "sidequest."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
from sidequest import aux_tasks, encoders
assert [*aux_tasks.TASKS.values(), *encoders.ENCODERS.values()]
"""


def test_every_module_and_what_a_registry_names_is_found_in_the_package(sidequest: Command) -> None:
    assert sidequest("-c", EVERYTHING, program="python") == "0 "


def test_every_command_runs_from_an_empty_folder_with_parts_of_the_user(sidequest: Command) -> None:
    own = "import=[brightness,tiny,flicker,stripes]"
    parts = (own, "aux=brightness", "encoder=tiny", "env=flicker", "threads=1", "device=cpu")
    assert sidequest("train", *parts, *SHORT["train.py"].split(), "run_dir=run").startswith("0 ")
    assert sidequest("evaluate", own, "checkpoint=run", "episodes=2").startswith("0 mean ")
    assert "give import=brightness,tiny,flicker,stripes," in sidequest("evaluate", "checkpoint=run")
    pretraining = (*parts, "source=stripes", "steps=2", "run_dir=pretrained")
    probe = "sidequest probe import=brightness,tiny,flicker,stripes checkpoint=pretrained"
    assert probe in sidequest("pretrain", *pretraining)
    probing = ("checkpoint=pretrained", "seeds=1", "train_labels=60", "test_labels=20", "device=cpu")
    assert sidequest("probe", own, *probing).startswith("0 ")


def test_an_agent_of_the_zoo_plays_from_an_empty_folder(sidequest: Command) -> None:
    words = ("checkpoint=zoo/pong-dqn", "episodes=1", "num_envs=1", "json=report.json")
    assert sidequest("evaluate", *words).startswith("0 mean ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "0 .*sidequest train"),
        (("trian",), "2 error: .*'train'"),
        (("train", "env=toi"), "2 error: .*'toy'"),
        (("train", "--help"), "0 .*sidequest train experiment=.*of_mine"),  # an entry point needs no import=
    ],
)
def test_what_is_wrong_is_one_line(words: tuple[str, ...], said: str, sidequest: Command) -> None:
    assert re.match(said, sidequest(*words), re.S)


@pytest.mark.parametrize(
    "name", ["agents", "agents.dqn", "aux_tasks", "aux_tasks.image.rotation", "configs", "envs.base", "evaluate"]
)
def test_in_a_checkout_both_names_are_the_same_module(name: str) -> None:
    module = import_module(f"sidequest.{name}")
    assert module is import_module(name)
    assert module.__spec__ is not None
    assert module.__spec__.name == module.__name__ == name


def test_in_a_checkout_the_command_runs_the_scripts() -> None:
    command = [sys.executable, "-m", "sidequest", "train", "env=toi"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: unknown env 'toi': did you mean 'toy'?\n")


def test_there_is_nothing_else_in_the_package() -> None:
    for name in ("sidequest.math", "sidequest.agents.nothing"):
        with pytest.raises(ModuleNotFoundError):
            import_module(name)


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {key: citation[key] for key in ("version", "license", "keywords")} == {
        key: project[key] for key in ("version", "license", "keywords")
    }


REWRITTEN = {
    "import agents": "from sidequest import agents",
    "import agents.dqn": "import sidequest.agents.dqn; from sidequest import agents",
    "import agents.dqn as d": "from sidequest.agents import dqn as d",
    "import os, agents as a, sys as s": "import os; from sidequest import agents as a; import sys as s",
    "from agents import dqn": "from sidequest.agents import dqn",
    "'é'; from agents.dqn import (  # agents\n  a,\n)": "'é'; from sidequest.agents.dqn import (  # agents\n  a,\n)",
    "if x:\n\timport agents": "if x:\n\tfrom sidequest import agents",
    "from . import agents": "from . import agents",
    "from agents_of_others import agents": "from agents_of_others import agents",
    "import os.agents": "import os.agents",
    "text = 'import agents'": "text = 'import agents'",
    "f'python train.py {x}'  # python train.pyc": "f'sidequest train {x}'  # python train.pyc",
    "'python agents.py'": "'python agents.py'",
}


@pytest.mark.parametrize("source", REWRITTEN)
def test_rewriting(source: str) -> None:
    pytest.importorskip("hatchling")
    rewrite = runpy.run_path(str(ROOT / "scripts/wheel.py"))["rewrite"]
    assert rewrite(source, ["agents"], ["train"]) == REWRITTEN[source]
