"""Probes of small worlds: what is in the pixels is found, what is not is not, and every comparison is paired."""

import json
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import run_help
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import experiment.probing.build
import probe as script
from agents import DQNConfig
from analysis.probe_table import Row, shown_metrics
from analysis.probes import Features, low_entropy, score_baseline, score_probe
from aux_tasks import TaskConfig
from configs.schema import Config, PretrainConfig, ProbeConfig
from configs.sources import BallsConfig, FramesConfig
from datasets import Episodes
from encoders import ENCODERS, EncoderConfig, build_encoder
from encoders.backbones import _resnet
from envs import ToyConfig, ToyVector
from experiment.command_line.composition import write_config
from experiment.folders.run_folder import read_run
from experiment.folders.weights import export_agent, export_encoder
from experiment.pretraining.run import build_pretraining
from experiment.probing import scores as probe_scores
from experiment.probing.build import build_online_probe, build_probing, build_supervised
from experiment.training.build import build_initial_encoder
from harness.progress import Meter
from replay import ReplayConfig

ENCODER = EncoderConfig(name="small")


def images(count: int = 500) -> Episodes:
    """Digits of scikit-learn, an episode each, with their class, how bright they are, and useless labels."""
    pixels = load_digits().images[:count, None].repeat(2, 2).repeat(2, 3)
    frames = (pixels * 15.9).astype(np.uint8)
    digit, brightness = load_digits().target[:count].astype(str), frames.mean((1, 2, 3)) / 255
    labels = {
        **{"digit": digit, "brightness": brightness, "level": (100 * brightness).astype(np.uint8)},
        "shuffled": np.random.default_rng(0).permutation(digit),
        "noise": np.random.default_rng(1).normal(size=count),
        **{"same": np.full(count, 3), "rare": np.arange(count) % 8 == 0},
    }
    return Episodes(frames, np.arange(count), np.arange(count) + 1, labels)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretraining's folder under `runs/`, whose encoder is not the initial one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "toy"
    folder.mkdir(parents=True)
    config = PretrainConfig(FramesConfig(), ToyConfig(), ENCODER, {"rotation": TaskConfig()}, seed=3)
    write_config(config, folder / "config.yaml")
    encoder = build_initial_encoder(replace(ENCODER), (1, 16, 16), seed=4)
    export_encoder(encoder, folder)
    return folder


def config(folder: Path, **changes: Any) -> ProbeConfig:
    settings = {"seeds": 2, "train_labels": 200, "test_labels": 80, "steps": 6, "batch_size": 16, "threads": 1}
    return ProbeConfig(**{"checkpoint": str(folder), "aux": {}, "device": "cpu", **settings, **changes})


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make `episodes` what every source gives."""

    def give(episodes: Episodes) -> None:
        monkeypatch.setattr(experiment.probing.build, "build_source", lambda *_, **__: episodes)

    give(images())
    return give


def probed(config: ProbeConfig) -> dict[str, Any]:
    assert script.probe(config, ["words"]) == 0
    folder = config.checkpoint.removesuffix("/encoder.safetensors")
    return json.loads(Path(config.report or f"{folder}/probe-{config.mode}-frames.json").read_text())


FEATURES = ["pixels", "initial maps", "initial output", "trained maps", "trained output"]


def means(report: dict[str, Any], **wanted: str) -> dict[tuple[str, str], float]:
    """Mean score by (features, metric) of the rows that have these values."""
    rows = [row for row in report["scores"] if all(row[key] == value for key, value in wanted.items())]
    return {(row["features"], row["metric"]): row["mean"] for row in rows}


def test_what_is_in_the_pixels_is_found_and_what_is_not_is_not(
    folder: Path, source: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    report = probed(config(folder))
    assert report["dropped"] == ["same", "rare"]
    names = ("digit", "brightness", "level", "shuffled", "noise")
    digit, bright, level, shuffled, noise = (means(report, label=name) for name in names)
    for features in FEATURES:
        assert min(digit[features, metric] for metric in ("accuracy", "f1", "knn")) > 0.75
        assert bright[features, "r2"] > (0.99 if features == "pixels" else 0.3)  # the encoder normalises
        assert bright[features, "mae"] < bright["baseline", "mae"]
        assert level[features, "r2"] == pytest.approx(bright[features, "r2"], abs=0.05)  # but for the rounding
        assert level[features, "accuracy"] < 0.5  # as classes, whose order is lost
        assert abs(shuffled[features, "accuracy"] - 0.1) < 0.1  # ten classes, 160 tests
        assert noise[features, "r2"] < 0.1
    assert digit["baseline", "accuracy"] < 0.2
    assert bright["baseline", "r2"] == pytest.approx(0, abs=0.05)
    assert np.mean([digit["pixels", f"accuracy/{k}"] for k in range(10)]) == pytest.approx(
        digit["pixels", "accuracy"], abs=0.05
    )
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("trained - initial: accuracy at maps ")
    assert "held-out, standardised features" in out
    rows = {cells[0].strip(): cells[1:] for line in out.splitlines() if len(cells := line.split("│")[1:-1]) > 1}
    assert rows["digit knn"][1].strip() == f"{digit['pixels', 'knn']:.3f}"
    assert rows["digit accuracy/7"][2].strip() == f"{digit['initial maps', 'accuracy/7']:.3f}"
    assert {name for name in rows if name.startswith(("level", "noise"))} == {
        *("level accuracy", "level knn", "level r2", "noise r2")
    }


def test_a_label_of_low_entropy_is_probed_if_it_is_named(folder: Path, source: Any) -> None:
    assert list(build_probing(config(folder, labels=["rare", "digit"])).labels) == ["rare", "digit"]
    parts, chance = [np.arange(1000), np.arange(1000, 2000)], np.random.default_rng(0).permutation(1000)
    for share in (0.1, 0.25, 0.28, 0.29, 0.4, 0.5):
        label = np.concatenate([np.arange(1000) % 2, chance < 1000 * share])
        entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
        assert (low_entropy({"coin": label}, *parts) == ["coin"]) == (entropy <= 0.6)
    assert low_entropy({"place": np.linspace(0, 1, 2000), "still": np.zeros(2000)}, *parts, most=0) == ["still"]


def test_a_signal_leaves_the_scores_of_the_draws_so_far(
    folder: Path, source: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    linear = probe_scores.score_linear

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return linear(*arguments)

    monkeypatch.setattr(probe_scores, "score_linear", interrupted)
    victim = folder / "victim"
    victim.write_text("mine")
    (folder / "probe-linear-frames.json").symlink_to(victim)
    assert script.probe(config(folder), []) == 130
    report = json.loads((folder / "probe-linear-frames.json").read_text())
    assert (len(report["examples"]), report["partial"]) == (1, True)
    assert {len(row["values"]) for row in report["scores"]} == {1}
    assert capsys.readouterr().out.splitlines()[-1].startswith("trained - initial: ")
    assert victim.read_text() == "mine"


def test_a_report_that_cannot_be_written_is_found_before_the_first_draw(
    folder: Path, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "measure", lambda *_: pytest.fail("measured"))
    for place in (folder / "config.yaml" / "report.json", folder):
        with pytest.raises(OSError, match=str(folder)):
            script.probe(config(folder, report=str(place)), [])


@pytest.mark.parametrize("classes", [1, 2, 7])
def test_whole_numbers_are_classes_and_a_measure(classes: int) -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(2, 150, 4))
    label, truth = (
        np.digitize(part[:, 0], [-1.5, -0.8, -0.2, 0.3, 0.8, 1.4]).astype(np.uint8) for part in (train, test)
    )
    label = label.clip(max=classes - 1)
    both, named, measured = (
        score_probe(train, label.astype(kind), test, truth.astype(kind)) for kind in ("u1", "U1", "f8")
    )
    assert both == named | measured
    assert not named.keys() & measured.keys()
    assert score_baseline(label, truth) == score_baseline(label.astype(str), truth.astype(str)) | score_baseline(
        label.astype(float), truth
    )
    if classes == 7:
        assert min(both["r2"], both["accuracy"]) > 0.7
        assert both["accuracy/3"] == np.mean(
            LogisticRegression(C=10.0, max_iter=1000).fit(train, label).predict(test[truth == 3]) == 3
        )


@pytest.mark.parametrize(("classes", "measured", "shown"), [(20, False, 20), (21, False, 0), (3, True, 0)])
def test_classes_are_shown_where_they_are_few_and_no_measure(classes: int, measured: bool, shown: int) -> None:
    ones = [f"accuracy/{i}" for i in range(classes)]
    metrics = ["accuracy", "f1", *ones, "knn", *(["r2", "mae"] if measured else [])]
    rows = [Row("held-out", "x", "pixels", "standardised", metric) for metric in metrics]
    guessed = [row._replace(features="baseline", metric=metric) for row in rows for metric in (row.metric, "r2")]
    expected = ["accuracy", "knn", *(["r2"] if measured else []), *ones[:shown]]
    assert shown_metrics({row: [0.5] for row in [*guessed, *rows]}) == {"x": expected}


def test_the_difference_is_paired_and_so_are_weights_and_examples(
    folder: Path, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = build_probing(config(folder))
    for name, seed in {"initial": 3, "trained": 4}.items():  # of the run, and of the file
        expected = build_initial_encoder(ENCODER, (1, 16, 16), seed).state_dict()
        assert all(torch.equal(tensor, expected[key]) for key, tensor in parts.encoders[name].state_dict().items())

    seen: list[Features] = []
    original = probe_scores.score_probe
    monkeypatch.setattr(probe_scores, "score_probe", lambda *given: [seen.append(given[1::2]), original(*given)][1])
    report = probed(config(folder, labels=["digit"], seeds=3))
    assert report["found"]["sha256"] == parts.sampler.episodes.fingerprint
    assert len(seen) == 3 * len(FEATURES)
    for first in range(0, len(seen), len(FEATURES)):
        for other in seen[first : first + len(FEATURES)]:
            assert all(np.array_equal(a, b) for a, b in zip(seen[first], other, strict=True))
    assert not np.array_equal(seen[0][0], seen[-1][0])  # another seed, other examples

    values = {(row["features"], row["metric"]): row["values"] for row in report["scores"]}
    for row in report["differences"]:
        initial = values[row["features"].replace("trained", "initial"), row["metric"]]
        assert row["values"] == [a - b for a, b in zip(values[row["features"], row["metric"]], initial, strict=True)]
        low, high = row["interval"]
        assert low <= row["mean"] <= high


def test_an_encoder_that_learned_nothing_differs_by_nothing(folder: Path, source: Any) -> None:
    export_encoder(build_initial_encoder(ENCODER, (1, 16, 16), seed=3), folder)
    for mode in ("linear", "finetune"):
        report = probed(config(folder, mode=mode, labels=["digit"], steps=2))
        assert {value for row in report["differences"] for value in row["values"]} == {0.0}


def test_a_report_is_reproducible_from_the_encoders_file_too_and_complete(folder: Path, source: Any) -> None:
    settings = {"raw": True, "seeds": 1, "labels": ["digit", "noise"]}
    files = {"a": folder, "b": folder / "encoder.safetensors"}
    first, second = (probed(config(path, report=str(folder / f"{n}.json"), **settings)) for n, path in files.items())
    for key in first.keys() - {"seconds", "config"}:
        assert first[key] == second[key], key
    assert first["command"] == "python probe.py words"
    assert {"torch", "scikit-learn", "sidequest"} <= first["versions"].keys()
    assert first["config"]["train_labels"] == 200
    raw, standard = (means(first, label="digit", scaling=scaling) for scaling in ("raw", "standardised"))
    assert raw["trained output", "accuracy"] != standard["trained output", "accuracy"]


def grouped() -> Episodes:
    """Images that tell their group at once; the group's class is a coin's, so it can be known but not inferred."""
    rng, group = np.random.default_rng(0), np.arange(30).repeat(6)
    frames = rng.integers(256, size=(30, 1, 16, 16)).astype(np.uint8)[group]
    frames[:, :, 0, :] = rng.integers(256, size=(180, 1, 16))  # no two the same
    return Episodes(frames, np.arange(180), np.arange(180) + 1, {"group": group, "fake": group % 2})


def test_groups_give_two_splits_and_only_the_random_one_leaks(folder: Path, source: Any, monkeypatch: Any) -> None:
    source(grouped())
    report = probed(config(folder))
    held, random = (means(report, split=split, label="fake") for split in ("held-out", "random"))
    assert random["pixels", "accuracy"] > 0.95
    assert held["pixels", "accuracy"] < 0.8
    assert means(report, label="group") == {}

    parts = build_probing(config(folder))
    group = parts.sampler.episodes.labels["group"]
    (train, test), (mixed_train, mixed_test) = parts.splits["held-out"], parts.splits["random"]
    assert not set(group[train]) & set(group[test])
    assert set(group[mixed_train]) & set(group[mixed_test])
    for known, asked in parts.splits.values():
        assert sorted([*known, *asked]) == list(range(len(group)))
    assert len(test) == len(mixed_test)

    monkeypatch.setattr("experiment.pretraining.run.build_source", lambda *_, **__: grouped())
    pretraining = build_pretraining(replace(read_run(folder), device="cpu"))
    assert np.array_equal(pretraining.test.episodes.rows(), test)  # what it held out


def test_the_gap_between_both_splits_is_named(folder: Path, source: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source(grouped())
    report = probed(config(folder, labels=["fake"]))
    scores = {(row["split"], row["features"], row["metric"]): row["values"] for row in report["scores"]}
    for row in report["gaps"]:
        random, held = (scores[split, row["features"], row["metric"]] for split in ("random", "held-out"))
        assert row["values"] == pytest.approx([r - h for r, h in zip(random, held, strict=True)])
    gap = next(row for row in report["gaps"] if (row["features"], row["metric"]) == ("pixels", "accuracy"))
    assert gap["mean"] > 0.2
    random, held = (np.mean(scores[split, "pixels", "accuracy"]) for split in ("random", "held-out"))
    told = f"fake accuracy at pixels: random {random:.3f}, held-out groups {held:.3f}, gap {random - held:+.3f}"
    assert told in capsys.readouterr().out


def test_a_file_of_weights_is_probed_without_a_run(
    folder: Path, source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS, "tiny", lambda channels: _resnet(channels, (3, 3), (1, 1), widening=1))
    frames = grouped().frames.repeat(3, 1)
    source(replace(grouped(), frames=frames, labels={**grouped().labels, "kind": np.arange(180) % 3}))
    named = EncoderConfig("tiny", layer_norm=False)
    torch.manual_seed(9)
    state = build_encoder(named, (3, 16, 16)).state_dict()
    torch.save({name.partition(".")[2]: tensor for name, tensor in state.items()}, tmp_path / "tiny.pth")
    settings = {"checkpoint": str(tmp_path / "tiny.pth"), "encoder": named, "source": BallsConfig()}
    asked = config(folder, **settings, labels=["fake", "kind"], seeds=1)
    parts = build_probing(asked)
    assert parts.report == Path("runs/evaluations/probe-linear-balls-tiny.json")
    initial, trained = (parts.encoders[name].state_dict() for name in ("initial", "trained"))
    assert torch.equal(trained["trunk.conv1.weight"], state["trunk.conv1.weight"])
    assert not torch.equal(initial["trunk.conv1.weight"], trained["trunk.conv1.weight"])
    assert initial["trunk.bn1.running_mean"].any()  # the untrained network is normalised on the labelled examples
    report = probed(replace(asked, report=str(tmp_path / "report.json")))
    assert {row["label"] for row in report["scores"]} == {"fake", "kind"}  # two classes and three
    assert {row["split"] for row in report["scores"]} == {"held-out", "random"}
    assert report["sha256"].keys() == {"tiny.pth"}


def test_episodes_are_not_torn_and_repeated_observations_are_left_out(folder: Path, source: Any) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(256, size=(60, 1, 16, 16)).astype(np.uint8)
    frames[1::6] = frames[0]  # in each of the ten episodes, one frame looks the same
    begin = np.arange(0, 60, 6)
    source(Episodes(frames, begin, begin + 6, {"x": rng.normal(size=60), "kind": np.arange(60) % 2}))
    parts = build_probing(config(folder))
    train, test = parts.splits["held-out"]
    assert not set(train // 6) & set(test // 6)
    for seed in range(3):
        drawn = probe_scores.draw(config(folder), parts, "held-out", seed)
        assert drawn.seen == (test % 6 == 1).sum() + (test == 0).sum() > 0
        assert not {frames[i].tobytes() for i in drawn.train} & {frames[i].tobytes() for i in drawn.test}
    source(Episodes(frames[:1].repeat(20, 0), np.arange(20), np.arange(20) + 1, {"x": rng.normal(size=20)}))
    with pytest.raises(ValueError, match="every test observation is, byte for byte"):
        probed(config(folder))


def recording() -> Episodes:
    """A hundred episodes of Catch's size, with labels that are in their pixels and one that is not."""
    rng = np.random.default_rng(0)
    place = rng.integers(30, size=(400, 2))
    frames, begin = np.zeros((400, 1, 36, 36), np.uint8), np.arange(0, 400, 4)
    for frame, (x, y) in zip(frames, place, strict=True):
        frame[0, y : y + 6, x : x + 6] = 255
    labels = {"x": place[:, 0], "y": place[:, 1].astype(np.float32), "coin": rng.normal(size=400), "same": np.ones(400)}
    return Episodes(frames, begin, begin + 4, labels)


def weights_after(config: ProbeConfig) -> list[Any]:
    parts = build_probing(config)
    train = probe_scores.draw(config, parts, "held-out", 0).train
    learner = build_supervised(config, parts, "trained", train, seed=1)
    probe_scores.fit(config, learner, Meter("update", None))
    assert np.isin(learner.sampler.sample(64, frozenset({"obs"}), 0, learner.rng).index.numpy(), train).all()
    return [*learner.encoder.state_dict().values(), *learner.heads.state_dict().values()]


def test_joint_with_weight_zero_is_finetune_bit_for_bit(folder: Path, source: Any) -> None:
    alone = weights_after(config(folder, mode="finetune"))
    for weight in (0.0, 1.0):
        joint = weights_after(config(folder, mode="joint", aux={"rotation": TaskConfig(weight=weight)}))
        assert all(torch.equal(a, b) for a, b in zip(alone, joint, strict=True)) == (weight == 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "finetune"},
        {"mode": "joint", "aux": {"rotation": TaskConfig(0.1)}},
        {"mode": "label_augmentation", "aux": {"rotation": TaskConfig()}},
    ],
    ids=["finetune", "joint", "label_augmentation"],
)
def test_finetuning_learns_the_digits_and_nothing_of_shuffled_ones(changes: Any, folder: Path, source: Any) -> None:
    settings = {"seeds": 1, "steps": 50, "batch_size": 32, "learning_rate": 3e-3, "labels": ["digit", "shuffled"]}
    report = probed(config(folder, **changes, **settings))
    digit, shuffled = means(report, label="digit"), means(report, label="shuffled")
    for start in ("initial", "trained"):
        assert digit[f"{start} output", "accuracy"] > 0.7
        assert (f"{start} output", "accuracy/7") in digit
        assert shuffled[f"{start} output", "accuracy"] < shuffled["baseline", "accuracy"] + 0.1


def test_joint_labels_and_the_mean_over_transformations_against_loops(
    folder: Path, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(folder, mode="label_augmentation", aux={"rotation": TaskConfig()}, labels=["digit"], steps=1)
    parts = build_probing(asked)
    rows = probe_scores.draw(asked, parts, "held-out", 0).train[:9]
    learner = build_supervised(asked, parts, "trained", rows, seed=1)
    (head,), (kinds,), (target,) = learner.heads, learner.classes, learner.targets
    with torch.no_grad():
        turned = [parts.sampler.observe(rows).rot90(k, (2, 3)) for k in range(4)]
        logits = np.stack([head(learner.encoder(view)).numpy() for view in turned])  # (4, 9, 4 * labels)
    means = np.array(
        [[np.mean([logits[k, i, 4 * y + k] for k in range(4)]) for y in range(len(kinds))] for i in range(9)]
    )
    np.testing.assert_array_equal(probe_scores.predict(learner, rows)[0], kinds[means.argmax(1)])

    taken: dict[str, Any] = {}
    total = probe_scores.weighted_sum
    monkeypatch.setattr(
        probe_scores, "weighted_sum", lambda terms, *rest: [taken.update(terms), total(terms, *rest)][1]
    )
    original = learner.sampler.sample
    seen: list[Any] = []
    monkeypatch.setattr(learner.sampler, "sample", lambda *given: [seen.append(original(*given)), seen[-1]][1])
    probe_scores.fit(asked, learner, Meter("update", None))
    at = {row: i for i, row in enumerate(rows.tolist())}
    for loss, row in zip(taken["label/0"].tolist(), seen[0].index.tolist(), strict=True):
        own = logits[:, at[row]]
        right = [own[k, 4 * int(target[row]) + k] - np.log(np.exp(own[k]).sum()) for k in range(4)]
        assert loss == pytest.approx(-np.mean(right), rel=1e-4)
    assert taken.keys() == {"label/0"}


def test_only_transformations_are_joined_with_labels(folder: Path, source: Any) -> None:
    for aux in ({"simclr": TaskConfig()}, {"rotation": TaskConfig(), "simclr": TaskConfig()}):
        with pytest.raises(ValueError, match="mode=label_augmentation needs one task with transformations"):
            probed(config(folder, mode="label_augmentation", aux=aux, labels=["digit"], steps=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "finetun"}, "did you mean 'finetune'"),
        ({"mode": "joint"}, "an auxiliary task, as aux=rotation, need each other"),
        ({"mode": "label_augmentation"}, "an auxiliary task, as aux=rotation, need each other"),
        ({"aux": {"rotation": TaskConfig()}}, "mode=joint or label_augmentation and an auxiliary task"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"labels": ["digits"]}, "unknown label 'digits': did you mean 'digit'?"),
        ({"labels": ["brightness"], "mode": "finetune"}, "unknown label 'brightness'"),
        ({"labels": ["same"]}, "the labels same have 0.0 nats of entropy or less"),
        ({"checkpoint": "nowhere"}, "nowhere/config.yaml does not exist"),
        ({"encoder": ENCODER}, "encoder=small knows of no labelled pictures: give source=... too"),
        (
            {"encoder": replace(ENCODER, init="x.pth"), "source": BallsConfig()},
            "encoder.init=x.pth: a probe takes weights by checkpoint",
        ),
        (
            {"encoder": ENCODER, "source": BallsConfig(), "checkpoint": "nowhere.pth"},
            r"nowhere\.pth does not exist",
        ),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], message: str, folder: Path, source: Any) -> None:
    with pytest.raises(ValueError, match=message):
        build_probing(config(folder, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["bal_x"]}, "unknown label 'bal_x': did you mean 'ball_x'?"),
        ({"labels": ["drift"], "mode": "finetune"}, "unknown label 'drift'"),
    ],
)
def test_an_unknown_label_is_refused_before_frames_are_recorded(
    changes: dict[str, Any], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run_help.at_step(1, lambda: pytest.fail("recorded"), monkeypatch)
    with pytest.raises(ValueError, match=message):
        build_probing(config(folder, source=FramesConfig(40), env=ToyConfig(num_envs=1), **changes))
    assert not list((folder / "data/frames").iterdir())


def test_the_encoder_of_an_agent_is_probed_too(tmp_path: Path, source: Any) -> None:
    run = Config(ToyConfig(), DQNConfig(hidden=8), EncoderConfig(), ReplayConfig(), seed=5, device="cpu")
    agent = run_help.exported_agent(run, tmp_path)
    torch.nn.init.ones_(agent.encoder.trunk[0].bias)
    export_agent(agent, ToyVector(run.env).action_space, tmp_path)
    source(recording())
    for file in ("encoder.safetensors", "agent.safetensors"):
        encoders = build_probing(config(tmp_path)).encoders
        expected = agent.encoder.state_dict()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in encoders["trained"].state_dict().items())
        assert not torch.equal(encoders["initial"].trunk[0].bias, expected["trunk.0.bias"])
        (tmp_path / file).unlink()  # zoo/ has the agent alone
    with pytest.raises(ValueError, match=r"encoder\.safetensors does not exist"):
        build_probing(config(tmp_path))


def test_an_online_probe_tells_what_is_there_and_repeats_itself(source: Any, caplog: pytest.LogCaptureFixture) -> None:
    source(recording())
    run = Config(ToyConfig(), DQNConfig(), EncoderConfig(), ReplayConfig(), probe_every=100, device="cpu")
    encoder = build_initial_encoder(run.encoder, (4, 36, 36), seed=0)
    assert build_online_probe(replace(run, probe_every=0), encoder) is None
    caplog.set_level(logging.INFO)
    probe = build_online_probe(run, encoder)
    assert "s every 100 steps (x, y, coin of 400 frames)" in caplog.text
    found = probe(encoder)
    assert found == probe(encoder)
    assert list(found) == [f"repr/probe/{name}" for name in ("x", "y", "coin", "mean")]
    assert found["repr/probe/mean"] == pytest.approx(np.mean(list(found.values())[:3]))
    assert min(found["repr/probe/x"], found["repr/probe/y"]) > 0.5 > 0.2 > found["repr/probe/coin"]
    assert not {row // 4 for row in probe.train} & {row // 4 for row in probe.test}
    source(Episodes(recording().frames, np.arange(400), np.arange(400) + 1, {"same": np.ones(400)}))
    with pytest.raises(ValueError, match="no label that varies; use probe_every=0"):
        build_online_probe(run, encoder)
    numbers = build_initial_encoder(EncoderConfig("state"), (5, 1, 1), seed=0)
    with pytest.raises(ValueError, match="probe_every=100 reads pixels, but this agent sees numbers"):
        build_online_probe(run, numbers)
