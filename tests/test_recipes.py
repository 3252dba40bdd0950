"""The recipes of CONTRIBUTING.md work as they stand, from a folder outside of the repository."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPES = re.findall(
    r"```python\n# (\w+\.py)\n(.*?)```\n\n    python (\w+\.py) (.*?)\n", (ROOT / "CONTRIBUTING.md").read_text(), re.S
)
SHORT = {
    "train.py": "device=cpu threads=1 steps=60 learning_starts=40 batch_size=4 agent.hidden=8 eval_episodes=2 "
    "replay.capacity=200",
    "pretrain.py": "device=cpu threads=1 steps=10 batch_size=4",
}
AFTER = {  # what reads the run, and how its output begins
    "train.py": ("evaluate.py", "checkpoint=run episodes=2", "mean "),
    "pretrain.py": ("probe.py", "checkpoint=run seeds=2 train_labels=20 test_labels=20", ""),
}


@pytest.mark.parametrize(("file", "code", "program", "words"), RECIPES, ids=[recipe[0] for recipe in RECIPES])
def test_a_module_outside_of_the_repository_extends_it(
    file: str, code: str, program: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(code)

    def run(script: str, *words: str) -> str:
        command = [sys.executable, str(ROOT / script), *words]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(program, *words.split(), *SHORT[program].split(), "run_dir=run")
    imported = next(word for word in words.split() if word.startswith("import="))
    reader, given, beginning = AFTER[program]
    assert run(reader, imported, *given.split()).startswith(beginning)


def test_there_is_a_recipe_for_each_kind() -> None:
    assert [recipe[0] for recipe in RECIPES] == ["brightness.py", "tiny.py", "flicker.py", "stripes.py"]
