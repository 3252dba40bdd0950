"""What a run says at its end."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import run_help

import experiment.training.ending
from experiment.pretraining.ending import held_out_result
from experiment.training.ending import why_no_update


def said(caplog: pytest.LogCaptureFixture) -> str:
    text = "\n".join(record.message for record in caplog.records)
    caplog.clear()
    return text


def test_a_training_ends_with_its_score_beside_random_play_and_the_next_commands(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    config = run_help.small(tmp_path / "run", steps=48, eval_episodes=5)
    assert run_help.run(config) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    random = report["random_play"]
    text = said(caplog)
    for what, found in {"score": report["summary"], "random play": random}.items():
        low, high = found["mean_interval"]
        assert re.search(
            rf"{what} +mean {found['mean']:.2f}, 95 % interval {low:.2f} to {high:.2f}, {found['n']} episodes", text
        )
    assert (random["n"], -1 <= random["mean"] <= 1) == (8, True)
    for command in ("python evaluate.py checkpoint=", "python compare.py ", "tensorboard --logdir "):
        assert f"{command}{tmp_path}" in text

    # again: nothing to do but to say how to go on
    assert run_help.run(config) == 0
    assert re.search("finished: .*48 steps .*steps=96", said(caplog))

    # on: random play is not measured again, unless the protocol is another one
    monkeypatch.setattr(experiment.training.ending, "random_policy", lambda *_: None)  # which cannot play
    assert run_help.run(replace(config, steps=96)) == 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["random_play"] == random
    assert "finished" not in said(caplog)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_starts": 4_000}, ["learning_starts=4000", "48 steps"]),
        ({"replay_ratio": 1 / 100}, ["replay_ratio=0.01", "24 steps"]),
    ],
)
def test_a_run_that_made_no_update_says_so(
    changes: dict[str, float], words: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = run_help.small(tmp_path, steps=48, **changes)
    assert all(word in why_no_update(config, 48) for word in words)
    assert run_help.run(config) == 0
    text = said(caplog)
    assert "no update was made" in text
    assert all(word in text for word in words)


def test_a_score_that_was_reached_is_how_a_run_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = run_help.small(tmp_path, steps=480, until_score=-1.0)
    for _ in range(2):
        assert "until_score=null" not in said(caplog)
        assert run_help.run(config) == 0
    assert "give until_score=null" in said(caplog)


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"accuracy": 0.93, "chance": 0.25, "loss": 0.2}, "held-out accuracy 0.930, chance 0.250"),
        ({"error_ratio": 0.4, "loss": 3.0}, "held-out error 0.400 of that of the trivial answer"),
        ({"loss": 3.25}, "held-out loss 3.25,"),
    ],
)
def test_a_pretrained_task_is_told_beside_chance(metrics: dict[str, float], text: str) -> None:
    others = {"test/xy/accuracy": 0.5, "test/xy/chance": 0.1, "repr/feature_std": 1.0}
    assert held_out_result("x", others | {f"test/x/{name}": value for name, value in metrics.items()}).startswith(text)
