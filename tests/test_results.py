"""Every table that a benchmark writes into a page is what the committed JSON gives."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parent.parent
MARK = re.compile(r"^<!-- table: made by python benchmarks/(\w+)\.py -->$", re.MULTILINE)
JSON_OF = {
    "conflict_report": "conflict-*-s*.json",
    "control_report": "control-*-s*.json",
    "atari_report": "pong-*-s*.json",
    "mutation_report": "mutation-*.json",
    "chaos_report": "chaos.json",
    "goals_report": "goals-*-s*.json",
    "denoising": "denoising-*.json",
    "goal_aux_report": "goal_aux-*-s*.json",
}
SCRIPTS = [
    "pretext_table",
    *sorted(
        name
        for page in [*ROOT.glob("results/*.md"), *ROOT.glob("docs/*.md")]
        for name in MARK.findall(page.read_text())
    ),
]
KEPT = [
    name for name in SCRIPTS if name == "pretext_table" or [*ROOT.glob(f"results/{JSON_OF.get(name, name + '.json')}")]
]


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


@pytest.mark.parametrize("name", KEPT)
def test_a_page_is_what_its_json_gives(name):
    script = import_module(name)
    page = script.PAGE.read_text()
    assert script.render_page(page) == page, f"run python benchmarks/{name}.py, or edit the text outside of its block"


def test_a_changed_figure_is_found():
    script = import_module("pretext_mnist")
    page = script.PAGE.read_text()
    figure = re.search(r"\| rotation \| 3 \| \S+ \| (\S+) \|", page)
    changed = page[: figure.start(1)] + "0.123" + page[figure.end(1) :]
    assert script.render_page(changed) == page


def test_a_table_of_denoising_has_baselines_and_intervals_over_seeds(tmp_path):
    script, common = import_module("denoising"), import_module("common")
    scores = dict.fromkeys(("seen", "unseen", "state_r2", "background_r2"), 0.25)
    cell = {"encoder": "shared", "initial": scores, "seconds": 9, "command": "made", "versions": {"torch": "2"}}
    cells = [cell | {"arm": "none", "seed": seed, "trained": {**scores, "unseen": 0.5 + seed / 10}} for seed in (0, 1)]
    cells[0]["pixels"] = {**scores, "seen": 0.125}
    content = {"world": "w", "background": "b", "steps": 5, "frames": 7, "cells": cells}
    (tmp_path / "denoising-w-b.json").write_text(json.dumps(content))
    page = script.render_page(common.with_block(None, "benchmarks/denoising.py", ""), tmp_path)
    assert "| pixels |  | 0.12 | 0.25 | 0.25 | 0.25 |" in page
    assert "| untrained encoder |  | 0.25 ± 0.00 | 0.25 ± 0.00 | 0.25 ± 0.00 | 0.25 ± 0.00 |" in page
    assert "| none | shared | 0.25 ± 0.00 | 0.55 ± 0.64 | 0.25 ± 0.00 | 0.25 ± 0.00 |" in page
    assert page.count("    made\n") == 1


def test_text_around_the_block_belongs_to_people():
    with_block = import_module("common").with_block
    page = "Before.\n<!-- table: made by python benchmarks/x.py -->\nold\n<!-- end -->\nAfter.\n"
    assert with_block(page, "benchmarks/x.py", "new\n") == page.replace("old", "new")
    for wrong in ("Before.\n", page + page):
        with pytest.raises(ValueError, match="instead of one"):
            with_block(wrong, "benchmarks/x.py", "new\n")


@pytest.mark.parametrize(
    ("name", "report", "figure"),
    [("atari", "pong-none-s0", "pong"), ("control", "control-cartpole-plain-s0", "control")],
)
def test_a_report_of_ones_own_runs_goes_where_it_was_asked_to(name, report, figure, tmp_path, monkeypatch):
    kept = json.loads((ROOT / "results" / f"{report}.json").read_text())
    run = tmp_path.joinpath(*report.split("-"))
    run.mkdir(parents=True)
    (run / "report.json").write_text(json.dumps(kept))
    (run / "config.yaml").write_text(kept["training"]["config"])
    rows = [{"step": step, "rollout/score": score} for step, score, *_ in kept["training"]["games"]]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    script, mine = ROOT / "benchmarks" / f"{name}_report.py", tmp_path / "mine"
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "results").iterdir()}
    monkeypatch.setattr(sys, "argv", [str(script), str(run)])
    with pytest.raises(SystemExit, match="out="):
        run_path(str(script), run_name="__main__")
    sys.argv.append(f"out={mine}")
    run_path(str(script), run_name="__main__")
    assert {path.name for path in mine.iterdir()} == {f"{report}.json", f"{name}.md", f"{figure}.png"}
    assert f"({report}.json)" in (mine / f"{name}.md").read_text()
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "results").iterdir()} == before


def test_every_kept_json_has_a_page():
    assert {"atari_report", "control_report", "pretext_cost", "pretext_mnist", "pretext_video", "study_mnist"} <= {
        *KEPT
    }
    assert len(SCRIPTS) == len({*SCRIPTS})


def test_when_a_mean_of_training_games_reached_a_score():
    scores = [*range(-21, 0), None, *[12] * 30]
    rows = [{"step": 1_000 * i, "clock": {"seconds": 60.0 * i}} for i in range(len(scores))]
    for row, score in zip(rows, scores, strict=True):
        row |= {} if score is None else {"rollout/score": score, "rollout/ep_rew_mean": row["step"] / 1_000 - 30}
    script = import_module("atari_report")
    found = script.reached(rows, 0)
    assert found == {"ten": (24_000, 1440.0), "hundred": (30_000, 1800.0)}  # 3 * 12 and -1 to -7
    assert script.when(found) == "24k, 24 min; 30k, 30 min"
    assert script.when(script.reached(rows, 12)) == "31k, 31 min; 42k, 42 min"
    assert script.when(script.reached(rows, 13)) == "-; 43k, 43 min"
    assert script.when(script.reached(rows, 99)) == "-"
