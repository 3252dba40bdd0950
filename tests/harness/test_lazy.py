"""Names that are imported when they are first used."""

import subprocess
import sys
from types import ModuleType

import pytest

from harness.lazy import LazyModule, Registry, lazily


def test_registry_imports_an_entry_when_it_is_read(monkeypatch):
    registry = Registry({"a": "made_up_module:A"})
    assert "a" in registry
    assert list(registry) == ["a"]
    with pytest.raises(ModuleNotFoundError):
        registry["a"]

    module = ModuleType("made_up_module")
    module.A = object()
    monkeypatch.setitem(sys.modules, "made_up_module", module)
    assert registry["a"] is module.A

    registry["b"] = 3
    assert registry["b"] == 3
    assert len(registry) == 2
    del registry["a"]
    assert "a" not in registry


def test_package_has_the_names_it_lists_and_no_others():
    getattr_ = lazily({"math": ("pi",)})
    assert 3 < getattr_("pi") < 4
    with pytest.raises(AttributeError):
        getattr_("tau")


def test_a_module_is_imported_when_a_name_of_it_is_read() -> None:
    assert LazyModule("math").pi > 3
    missing = LazyModule("no_such_module")
    with pytest.raises(ModuleNotFoundError):
        _ = missing.pi


def test_a_training_starts_without_what_it_may_not_need() -> None:
    late = {"scipy", "sklearn", "captum", "matplotlib", "stable_baselines3", "dm_control", "mujoco"}
    code = f"import sys, train; print(*({late} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "\n", done.stderr


@pytest.mark.parametrize("command", ["train", "pretrain", "probe", "evaluate"])
def test_command_line_is_composed_without_torch(command):
    name = {"train": "config"}.get(command, command)
    words = {"pretrain": [], "probe": ["checkpoint=x"], "evaluate": ["checkpoint=x"], "train": ["env=atari/breakout"]}
    code = f"import sys; from experiment.command_line.overrides import compose_words; \
compose_words({name!r}, *{words[command]}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["agent.lr=1"], 2), (["steps=0"], 2)])
def test_help_and_wrong_words_are_answered_before_torch_loads(words, code):
    """The finder stands for torch, and fails the test if it is asked for."""
    script = f"""
import runpy, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        assert name != "torch"
sys.meta_path.insert(0, NoTorch())
sys.argv = ["train.py", *{words!r}]
runpy.run_path("train.py", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr
