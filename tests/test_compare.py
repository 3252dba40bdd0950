"""The command: its words, what it writes, and its errors."""

import csv
import re
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from compare_help import config_of, fake_run, study
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import compare as script
from configs.schema import CompareConfig, Config, PretrainConfig, flat
from experiment.command_line.composition import complete, freeze
from experiment.command_line.overrides import compose_words, path_word, with_keys
from experiment.folders.next_commands import follow_up, start_from, training_command

ROOT = Path(__file__).parent.parent
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A comparison of three arms with a published curve."""
    root = tmp_path_factory.mktemp("compare")
    study(root / "runs", 2)
    (root / "paper.csv").write_text("step,score\n0,1\n5000,2\n")
    words = [str(root / "runs"), f"out={root / 'out'}", f"published=[{root / 'paper.csv'}]", "baseline=aux=rotation"]
    assert script.main(words) == 0
    return root / "out"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["runs/a", "runs/b*", "x=steps"], ["x=steps", "runs=['runs/a','runs/b*']"]),
        (["runs=[a]", "out=b"], ["runs=[a]", "out=b"]),
        (["a/b=c/s0"], ["runs=['a/b=c/s0']"]),
        (["it's"], [r"runs=['it\'s']"]),
        (["baseline=aux=none"], ["baseline='aux=none'"]),
    ],
)
def test_bare_words_are_runs(words, expected):
    assert with_keys("compare", words) == expected


@pytest.mark.parametrize("path", ["a b", "it's", "x=1/s0", "back\\slash", "back\\", "é[1],{2}", "a\\'b"])
def test_hydra_reads_a_path_as_it_is(path):
    assert list(compose_words("compare", *with_keys("compare", [f"d/{path}"])).config.runs) == [f"d/{path}"]


def test_what_is_written(report):
    names = {path.name for path in report.iterdir() if path.is_file()}
    tables = {"runs.csv", "groups.csv", "curves.csv"}
    assert names == tables | {"report.html", "comparison.md", "curves.png", "curves.svg"}
    assert (report / "curves.png").read_bytes().startswith(b"\x89PNG")
    ET.parse(report / "curves.svg")
    runs = [*csv.DictReader((report / "runs.csv").open())]
    assert len(runs) == 6
    assert {row["final"] for row in runs} == {"3.0", "3.1", "3.5", "3.6", "2.0", "2.1"}
    groups = {(row["group"], row["quantity"]): row for row in csv.DictReader((report / "groups.csv").open())}
    assert groups["aux=rotation", "final"]["mean"] == "3.55"
    assert groups["aux=rotation", "aux/rotation/accuracy"]["mean"] == "0.75"
    curves = [*csv.DictReader((report / "curves.csv").open())]
    assert [row["n"] for row in curves] == ["2"] * 3 * 120


def test_the_baseline_is_first_and_the_page_stands_alone(report):
    page = (report / "report.html").read_text()
    assert page.index("aux=rotation") < page.index("aux=none")
    assert not re.search(r"(src|href)=[\"']?(?!\"?data:)", page)
    assert "paper: published, another protocol" in page
    assert 'name="viewport"' in page
    assert page.count("<polyline") == 1 + 3 * (2 + 1) + 3 + 3  # published; seeds and mean; final means; profiles
    assert len(re.findall(r"<circle[^>]*><title>", page)) == 6
    markdown = (report / "comparison.md").read_text()
    assert "## Difference from aux=rotation: toy" in markdown


class Balanced(HTMLParser):
    """Whether every element that is opened is closed, in order."""

    EMPTY = frozenset({"meta", "img", "line", "polyline", "polygon", "wbr"})

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed(report):
    parser = Balanced()
    parser.feed((report / "report.html").read_text())
    assert parser.open == []


def test_names_from_foreign_files_are_text(tmp_path):
    fake_run(tmp_path / "a", "aux=none")
    config = fake_run(tmp_path / "b", "aux=rotation") / "config.yaml"
    config.write_text(config.read_text().replace("rotation:", f'"{HOSTILE}":'))
    (tmp_path / "x|y.csv").write_text("step,score\n10,1\n1000,2\n")
    assert script.main([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "x|y.csv"), f"out={tmp_path}/o"]) == 0
    page = (tmp_path / "o" / "report.html").read_text()
    assert HOSTILE not in page
    assert "alert(1)" in page
    assert "\\|y (file)" in (tmp_path / "o" / "comparison.md").read_text()


def scalars(folder):
    events = EventAccumulator(str(folder)).Reload()
    return events, {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_a_run_for_each_group_and_the_scores_of_each_run(report):
    events, found = scalars(report / "toy" / "aux=none")
    assert [*found] == ["group/rollout_score", "group/rollout_score_low", "group/rollout_score_high"]
    ends = [found[tag][-1] for tag in found]
    assert [step for step, _ in ends] == [1000] * 3
    assert [value for _, value in ends] == pytest.approx([2.97375, 2.925, 3.0225])
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    events, found = scalars(report / "toy" / "aux=none" / "s1")
    assert [*found] == ["final", "best", "last"]
    content = events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    start = HParamsPluginData.FromString(content).session_start_info
    assert {*start.hparams} == {"task", "aux", "seed"}  # what differs, alone
    assert start.hparams["aux"].string_value == "none"


def test_a_later_comparison_replaces_the_groups(tmp_path):
    study(tmp_path / "runs", 1)
    assert script.main([str(tmp_path / "runs"), f"out={tmp_path}/out"]) == 0
    (tmp_path / "out" / "events.out.tfevents.1.mine").write_text("stays")
    assert script.main([str(tmp_path / "runs" / "none"), f"out={tmp_path}/out"]) == 0
    left = [str(path.relative_to(tmp_path / "out").parent) for path in (tmp_path / "out").rglob("events.*")]
    assert sorted(left) == [".", "toy/dqn", "toy/dqn/s0"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "no runs in nowhere"),
        ([], "no runs are given"),
        (["runs=[]"], "no runs are given"),
        (["a", "x=hours"], "x must be one of steps, seconds"),
        (["a", "baseline=aux=curl"], "baseline=aux=curl matches no label"),
        (["a", "published=[gone.csv]"], "gone.csv"),
        (["a", "otu=b"], "did you mean 'out'"),
        (["a", "b", "published=[paper.csv]"], "of which task"),
    ],
)
def test_errors_are_one_line(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fake_run(tmp_path / "a")
    fake_run(tmp_path / "b", "env=pointmass", "agent=sac")
    (tmp_path / "paper.csv").write_text("step,score\n0,1\n")
    assert script.main(words) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


# --- the commands to reproduce ---


@pytest.mark.parametrize(
    "words",
    [
        ["aux=none"],
        ["aux=[rotation,permutation]", "aux.rotation.options.crop_rows=[0,24]", "encoder=der", "gamma=0.5"],
        ["env=pointmass", "agent=sac", "seed=3", "clip_reward=false", "until_score=2.5"],
        ["env=atari", "env.game=breakout", "replay=prioritized", "replay.path='it is'", "run_dir=x/y"],
    ],
)
def test_the_command_of_a_run_makes_its_config(words):
    config = config_of(*words)
    command = training_command(flat(config))
    assert command.startswith("python train.py ")
    again = compose_words("config", *shlex.split(command)[2:]).config
    expected = flat(config) | {"run_dir": None}
    assert flat(complete(freeze(again, type(config)))) == expected


@pytest.mark.parametrize("name", ["plain", "it's", "a=b", "a,b", "a (2)", "{x}", "a b"])
def test_the_next_command_of_a_run_in_any_folder_is_read(name):
    config = config_of("aux=none", path_word("run_dir", Path("runs", name)))
    program, *words = shlex.split(follow_up(config, "python evaluate.py").removeprefix("python "))
    assert (program, compose_words("evaluate", *words).config.checkpoint) == ("evaluate.py", f"runs/{name}")


@pytest.mark.parametrize(
    "words",
    [
        ["encoder=small"],
        ["encoder=control_fast", "encoder.feature_dim=null"],  # null: the default of the class, not of the preset
        ["encoder=resnet18", "encoder.layer_norm=true", "source.size=32"],
        ["encoder=nature", "encoder.standardize=true", "frame_stack=4"],
    ],
)
def test_an_agent_starts_from_the_encoder_of_a_pretraining_with_its_settings(words):
    config = freeze(compose_words("pretrain", "aux=rotation", "source=balls", *words).config, PretrainConfig)
    program, *words = shlex.split(start_from(config, Path("runs/a b/encoder.safetensors")).removeprefix("python "))
    assert program == "train.py"
    trained = freeze(compose_words("config", *words).config, Config)
    assert trained.encoder == replace(config.encoder, init="runs/a b/encoder.safetensors")
    assert trained.frame_stack == config.frame_stack
    assert start_from(replace(config, imports=["mine"]), Path("x")).startswith("python train.py import=mine ")


def test_a_config_of_another_version_has_no_command():
    assert training_command(flat(config_of("aux=none")) | {"steps_per_update": 4.0}) is None
    assert training_command({"env.name": "gone", "agent.name": "dqn", "encoder.name": "der"}) is None


def test_the_page_in_the_documentation_is_what_the_results_give(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    committed = (ROOT / "docs" / "images" / "compare_pong.html").read_text()
    words = [f"results/pong-{arm}-s*.json" for arm in ("none", "rotation", "permutation")]
    assert script.run(CompareConfig(words, out=str(tmp_path)), words) == 0
    assert (tmp_path / "report.html").read_text() == committed, "run the command below the picture in docs/compare.md"
