"""Groups, labels, measures and warnings of runs that a helper wrote."""

import base64
import fcntl
import json
import re

import numpy as np
import pytest
from compare_help import fake_run, study

from analysis.comparison.figure import write_figure
from analysis.comparison.groups import group_runs, with_baseline
from analysis.comparison.measure import Estimate, compare, on_grid, smooth
from analysis.comparison.notes import notes
from analysis.comparison.page import RIGHT, WIDTH, html_page
from analysis.comparison.runs import EPISODES, SCORE, Run, find_runs, read_runs
from analysis.comparison.scores_csv import Published
from analysis.comparison.tables import format_estimate, format_number, tables
from analysis.comparison.tensorboard import write_groups
from compare import IGNORED
from harness.derive import LONGEST


def groups_of(*words):
    return group_runs(read_runs(find_runs(map(str, words))), IGNORED)


def labels(*words):
    return [group.label for group in groups_of(*words)]


def said(*words):
    return [note.text for note in notes(compare(groups_of(*words)))]


# --- grouping ---


def test_an_unusual_run_does_not_lengthen_the_labels_of_the_others(tmp_path):
    arms = {"none": "aux=none", "rotation": "aux=rotation", "preset": "experiment=pong_cpu env=toy"}
    for name, words in arms.items():
        fake_run(tmp_path / name, *words.split())
    found = labels(tmp_path)
    assert {"aux=none", "aux=rotation"} <= {*found}
    assert max(map(len, found)) <= LONGEST
    assert len({*found}) == 3


def test_groups_differ_in_their_labels_where_an_older_run_lacks_a_key(tmp_path):
    words = ["agent.hidden=8", "gamma=0.9", "replay.alpha=0.1", "batch_size=16"]
    for i, word in enumerate(words):
        fake_run(tmp_path / f"other{i}", "aux=none", word)
    fake_run(tmp_path / "new", "aux=none")
    old = fake_run(tmp_path / "old", "aux=none") / "config.yaml"
    old.write_text(re.sub(r"(?m)^  epsilon_end: .*\n", "", old.read_text()))
    found = labels(tmp_path)
    assert len({*found}) == len(found) == 6


def test_runs_are_told_apart_by_name_and_seed(tmp_path):
    fake_run(tmp_path / "x", "aux=none", "seed=11", score=1)
    fake_run(tmp_path / "x1", "aux=rotation", "seed=1", score=5)
    found = compare(groups_of(tmp_path))
    assert [cell.values("last")[0] > 2 for cell in found.of_task(found.tasks[0])] == [False, True]


LABELS = {
    "tasks": ([["aux=none"], ["aux=rotation"]], ["aux=none", "aux=rotation"]),
    "several tasks": ([["aux=none"], ["aux=[rotation,permutation]"]], ["aux=none", "aux=permutation+rotation"]),
    "a weight": (
        [["aux=rotation"], ["aux=rotation", "aux.rotation.weight=0.5"]],
        ["rotation.weight=0.5", "rotation.weight=1.0"],
    ),
    "a weight beside none": (
        [["aux=none"], ["aux=rotation"], ["aux=rotation", "aux.rotation.weight=0.5"]],
        ["aux=none", "aux=rotation rotation.weight=0.5", "aux=rotation rotation.weight=1.0"],
    ),
    "an option": (
        [["aux=rotation"], ["aux=rotation", "aux.rotation.options.hidden=8"]],
        ["rotation.hidden=256", "rotation.hidden=8"],
    ),
    "a key of the agent": ([["agent.hidden=8"], ["agent.hidden=16"]], ["hidden=16", "hidden=8"]),
    "encoders, with what each implies": ([["encoder=der"], ["encoder=small"]], ["encoder=der", "encoder=small"]),
    "confounded": (
        [["aux=none"], ["aux=rotation", "agent.learning_rate=0.5"]],
        ["aux=none learning_rate=0.00025", "aux=rotation learning_rate=0.5"],
    ),
    "an encoder for each seed": (
        [[f"encoder.init=runs/pretrain/{name}/s{seed}", f"seed={seed}"] for name in "ab" for seed in (0, 1)],
        ["init=runs/pretrain/a/s*", "init=runs/pretrain/b/s*"],
    ),
    "one group": ([["aux=rotation"]], ["dqn+rotation"]),
    "no effect on the learning": (
        [["seed=0"], ["seed=1", "threads=2", "eval_every=50", "device=cpu", "log_every=10", "diagnose_every=0"]],
        ["dqn"],
    ),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_the_keys_that_differ(case, tmp_path):
    arms, expected = LABELS[case]
    for i, words in enumerate(arms):
        fake_run(tmp_path / str(i), *words)
    assert labels(tmp_path) == expected


def test_what_differs_between_tasks_alone_does_not_split_a_group(tmp_path):
    for env in ("toy", "pointmass"):
        for aux in ("none", "rotation"):
            rate = "agent.learning_rate=0.5" if env == "toy" else "agent.learning_rate=0.1"
            agent = "agent=dqn" if env == "toy" else "agent=sac"
            fake_run(tmp_path / env / aux, f"env={env}", f"aux={aux}", agent, rate)
    found = groups_of(tmp_path)
    assert [group.label for group in found] == ["aux=none", "aux=rotation"]
    assert [*found[0].runs] == ["pointmass", "toy"]


def test_the_baseline_comes_first(tmp_path):
    groups = groups_of(study(tmp_path, 1))
    assert groups[0].label == "aux=none"
    for name in ("aux=rotation", "rotation"):
        assert with_baseline(groups, name)[0].label == "aux=rotation"
    with pytest.raises(ValueError, match=r"baseline=aux is in 3 labels"):
        with_baseline(groups, "aux")
    with pytest.raises(ValueError, match=r"did you mean 'aux=rotation'"):
        with_baseline(groups, "aux=rotatoin")


# --- measures ---


def test_final_best_last_and_area(tmp_path):
    fake_run(tmp_path / "run", score=10)
    (outcome,) = compare(groups_of(tmp_path)).of_task("toy")[0].outcomes
    assert outcome.final == 10
    # Rows are 50 steps apart, the window is a tenth of 1000: two rows.
    assert (outcome.best, outcome.last) == (9.75, 9.75)
    assert outcome.area == pytest.approx(4.77, abs=0.01)  # the last value carried forward over 50 steps
    assert outcome.seconds == pytest.approx(10)
    assert outcome.per_update == pytest.approx(0.04, rel=0.02)


def test_the_best_score_is_of_a_whole_window(tmp_path):
    folder = fake_run(tmp_path / "a")
    lucky = json.dumps({"step": 1, SCORE: 99.0}) + "\n"
    (folder / "metrics.jsonl").write_text(lucky + (folder / "metrics.jsonl").read_text())
    (outcome,) = compare(groups_of(tmp_path)).of_task("toy")[0].outcomes
    assert outcome.best == pytest.approx((99 + 0.05 + 0.1) / 3)  # up to step 100, a tenth


def test_a_group_stops_at_its_shortest_run_and_the_area_at_that_of_all(tmp_path):
    for arm, ends in {"none": (1000, 400), "rotation": (1000, 1000)}.items():
        for seed, end in enumerate(ends):
            fake_run(tmp_path / arm / str(seed), f"aux={arm}", f"seed={seed}", score=10, end=end)
    comparison = compare(groups_of(tmp_path))
    none, rotation = comparison.of_task("toy")
    assert (none.curve.x[-1], rotation.curve.x[-1]) == (400, 1000)
    assert comparison.ends["toy"] == 400
    np.testing.assert_allclose(none.values("area"), rotation.values("area"))
    assert any("aux=none has fewer agent steps" in note.text for note in notes(comparison))


def test_the_grid_carries_the_last_value_forward():
    grid = np.array([0.0, 1, 2, 3, 10, 11])
    assert on_grid(np.array([1, 3, 10]), np.array([5.0, 6, 7]), grid).tolist() == [5, 5, 5, 6, 7, 7]


def test_returns_are_averaged_over_a_window_and_other_metrics_are_not():
    rows = [{"step": step, SCORE: float(step), "eval/mean_reward": step} for step in (1, 2, 3, 7)]
    run = Run("run", "toy", 0, {}, rows)
    assert smooth(run, SCORE, 2)[1].tolist() == [1, 1.5, 2.5, 7]
    assert smooth(run, "eval/mean_reward", 2)[1].tolist() == [1, 2, 3, 7]


@pytest.mark.parametrize("none", [{}, {EPISODES: None}, {EPISODES: 0}, {EPISODES: "x"}])
def test_a_row_counts_as_many_times_as_it_has_episodes(none):
    rows = [{"step": 1, SCORE: 1.0, EPISODES: 3}, {"step": 2, EPISODES: 9}, {"step": 3, SCORE: 9.0} | none]
    assert smooth(Run("run", "toy", 0, {}, rows), SCORE, 10)[1].tolist() == [1, 3]


@pytest.mark.parametrize("measured", ["eval/mean_reward", "aux/rotation/grad_cosine", "repr/probe/mean"])
def test_the_time_of_an_update_is_without_what_is_measured_beside(measured):
    clocks = [(1, 0), (2, 10), (4, 20), (104, 20), (105, 30), (107, 40)]  # measured for 100 s
    rows = [{"step": i, "train/loss": 1.0, "clock": {"seconds": s, "updates": n}} for i, (s, n) in enumerate(clocks)]
    del rows[3]["train/loss"]
    rows[3][measured] = 1.0
    assert Run("run", "toy", 0, {}, rows).learning().tolist() == [[2, 1, 2], [10, 10, 10]]


def test_a_band_from_five_runs_on_and_the_extremes_below(tmp_path):
    few, many = (compare(groups_of(study(tmp_path / str(n), n))).of_task("toy")[0].curve for n in (4, 5))
    assert few.low[-1] == few.runs[:, -1].min()
    assert few.high[-1] == few.runs[:, -1].max()
    assert many.runs[:, -1].min() < many.low[-1] < many.mean[-1] < many.high[-1] < many.runs[:, -1].max()


def test_seconds_instead_of_steps(tmp_path):
    none, rotation = compare(groups_of(study(tmp_path, 2)), "seconds").of_task("toy")[::2]
    assert (none.curve.x[-1], rotation.curve.x[-1]) == (10, 20)  # each at its own end


def table(tmp_path, title):
    comparison = compare(groups_of(tmp_path))
    (found,) = [one for one in tables(comparison, notes(comparison)) if one.title.startswith(title)]
    return {row[0].split(" [")[0]: dict(zip(found.header, row, strict=True)) for row in found.rows}


def test_the_tables_say_what_was_put_in(tmp_path):
    study(tmp_path)
    scores = table(tmp_path, "Scores")
    assert [row["final evaluation"].split()[0] for row in scores.values()] == ["3.20", "2.20", "3.70"]
    differences = table(tmp_path, "Difference")["aux=rotation"]  # its last row: the area
    assert differences["paired by seed"].startswith("+0.2")
    costs = table(tmp_path, "Cost")
    assert (costs["aux=none"]["ratio of minutes"], costs["aux=rotation"]["ratio of minutes"]) == ("1.00", "2.00")
    solved = table(tmp_path, "Auxiliary")["aux=rotation"]
    assert [solved[name] for name in ("value", "chance", "below 0", "effective rank")] == [
        "0.750",
        "0.250",
        "50 %",
        "10.0",
    ]
    assert table(tmp_path, "What differs")["aux.rotation.weight"]["aux=none"] == "-"


def test_pairs_cancel_what_seeds_share(tmp_path):
    study(tmp_path)
    comparison = compare(groups_of(tmp_path))
    (found,) = [one for one in tables(comparison, []) if one.title.startswith("Difference")]
    row = next(row for row in found.rows if row[:2] == ["aux=rotation", "final evaluation"])
    assert row[3:5] == ["+0.50 [0.50, 0.50]", "5"]
    assert row[2] != row[3]
    assert row[5].startswith("1.00")  # of the 25 pairs


def test_games_have_a_scale_and_tasks_with_scales_an_aggregate(tmp_path):
    pong = {"env": {"name": "atari"}, "protocol": {"name": "nature", "epsilon": 0.05}}
    for game, score in {"pong": 14.6, "breakout": 1.7}.items():
        for seed in range(2):
            fake_run(tmp_path / game / str(seed), "env=atari", f"env.game={game}", f"seed={seed}", score=score, **pong)
    normalised = table(tmp_path, "Scores: pong")["dqn"]["human-normalised"]
    assert normalised == "1.00"
    overall = table(tmp_path, "Over all tasks")["dqn"]
    assert [overall[name].split()[0] for name in ("mean", "median", "IQM", "optimality gap")] == ["0.50"] * 4
    write_figure(compare(groups_of(tmp_path)), [], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0, "0.00"), (1234.5, "1,234"), (12.34, "12.3"), (0.0123, "0.0123")]
)
def test_numbers_have_about_three_digits(value, text):
    assert format_number(value) == text


def test_an_interval_has_the_digits_of_its_value():
    assert format_estimate(Estimate(1.234, 3, 1.0, 2.0)) == "1.23 [1.00, 2.00]"
    assert format_estimate(Estimate(-1234.5, 3, -2000, 0.5), signed=True) == "-1,234 [-2,000, 0]"
    assert format_estimate(Estimate(1.5, 1)) == "1.50"


# --- the page and the folders ---


def page(folder, *published):
    return html_page("title", compare(groups_of(folder)), [], [], published, [])


@pytest.mark.parametrize(("end", "ends"), [(500, False), (1000, True), (2000, True)])
def test_a_published_curve_ends_where_it_ends(end, ends, tmp_path):
    fake_run(tmp_path / "a")
    curve = Published("paper", np.array([0.0, end]), np.array([1.0, 2.0]), None, None)
    (points,) = re.findall(r'points="([^"]*)"[^>]*stroke-dasharray', page(tmp_path, curve))
    assert (float(points.split()[-1].split(",")[0]) == WIDTH - RIGHT) == ends


def test_the_page_has_the_latest_picture_of_a_task(tmp_path):
    pictures = fake_run(tmp_path / "a", "aux=rotation") / "pictures"
    pictures.mkdir()
    latest = "rotation-1000.png"
    for name in ("rotation-900.png", latest, "rotation-1000 (1).png", "rotation-x-2000.png", "rotation-.png"):
        (pictures / name).write_text(name)
    found = re.findall('<img[^>]*base64,([^"]*)', page(tmp_path))
    assert [base64.b64decode(content).decode() for content in found] == [latest]


def test_a_folder_of_tensorboard_has_a_bounded_name(tmp_path):
    run = Run("run", 200 * "t", 0, {}, [{"step": 1, SCORE: 1.0}], label="a")
    write_groups(compare(group_runs([run], ())), tmp_path)
    assert [len(folder.name) for folder in tmp_path.iterdir()] == [LONGEST]


# --- what is wrong with the runs ---


def test_two_runs_of_one_seed_are_refused(tmp_path):
    for name in ("a", "b"):
        fake_run(tmp_path / name, "seed=3")
    with pytest.raises(ValueError, match=r"a and .*b are both seed 3 of dqn: leave one out"):
        groups_of(tmp_path)


def test_two_protocols_in_a_group_are_refused(tmp_path):
    fake_run(tmp_path / "a", "seed=0")
    fake_run(tmp_path / "b", "seed=1", protocol={"name": "rainbow", "epsilon": 0.001})
    with pytest.raises(ValueError, match=r"b was evaluated under rainbow.*under env.*evaluate one again"):
        groups_of(tmp_path)


DIFFERENT = {
    "protocol": ({"protocol": {"name": "rainbow", "epsilon": 0.001}}, "protocol rainbow"),
    "environment": ({"env": {"name": "toy", "num_envs": 9, "size": 72}}, "size=72"),
    "version": ({"versions": {"gymnasium": "9.9"}}, "gymnasium 9.9"),
    "episodes": ({"summary": {"mean": 1.0, "n": 7}}, "7 episodes"),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_a_difference_beside_the_settings_is_marked(what, tmp_path):
    report, text = DIFFERENT[what]
    for seed in range(5):
        fake_run(tmp_path / "none" / str(seed), "aux=none", f"seed={seed}")
        fake_run(tmp_path / "rotation" / str(seed), "aux=rotation", f"seed={seed}", **report)
    comparison = compare(groups_of(tmp_path))
    found = notes(comparison)
    (note,) = [note for note in found if text in note.text]
    assert note.labels == ("aux=rotation",)
    scores = tables(comparison, found)[0]
    assert [row[0] for row in scores.rows] == ["aux=none", f"aux=rotation [{found.index(note) + 1}]"]


def test_a_number_is_the_same_with_and_without_a_point():
    runs = [Run("a", "toy", 0, {"weight": 1}, []), Run("b", "toy", 1, {"weight": 1.0}, [])]
    assert [len(group.all_runs) for group in group_runs(runs, ())] == [2]


def test_a_note_marks_its_own_task(tmp_path):
    fake_run(tmp_path / "a", "aux=none", "seed=0")
    for seed in range(5):
        fake_run(tmp_path / f"b{seed}", "env=atari/pong", "aux=none", f"seed={seed}")
    comparison = compare(groups_of(tmp_path))
    shown = {table.title: table.rows for table in tables(comparison, notes(comparison))}
    assert {task: shown[f"Scores: {task}"][0][0] for task in comparison.tasks} == {"toy": "dqn [1]", "pong": "dqn"}


def test_returns_in_different_goal_spaces_are_marked_and_in_the_spaces_of_the_seeds_are_not(tmp_path):
    for space in ("rig", "tcn"):
        for seed in (0, 1):
            words = ["env=pusher", "agent=sac", f"goal.space=runs/{space}/s{seed}", f"seed={seed}"]
            fake_run(tmp_path / space / str(seed), *words)
    assert any("rewards are of different goal spaces" in text for text in said(tmp_path))
    assert not any("goal spaces" in text for text in said(tmp_path / "rig"))


def test_equal_runs_have_no_warnings(tmp_path):
    assert said(study(tmp_path)) == []


def test_where_the_copies_were_stepped_tells_no_groups_apart(tmp_path):
    words = ("env=dmc/cartpole_swingup", "agent=sac")
    for seed in range(5):
        own = {"processes": seed % 2, "threads": 1}
        fake_run(tmp_path / str(seed), *words, f"seed={seed}", f"env.processes={seed % 2}", env=own)
    (group,) = groups_of(tmp_path)
    assert len(group.all_runs) == 5
    assert not any("evaluated in an environment" in text for text in said(tmp_path))


def test_few_seeds_and_what_their_interval_cannot_say(tmp_path):
    (text,) = said(study(tmp_path / "three", 3))
    assert "10 distinct resamples" in text
    assert "less often than 95 %" in text
    assert "IQM is the mean" in text
    (text,) = said(study(tmp_path / "one", 1))
    assert "no interval" in text


def test_one_run_and_one_group_are_shown_with_a_line(tmp_path):
    fake_run(tmp_path / "a", "seed=0")
    assert any("one run" in text for text in said(tmp_path))
    fake_run(tmp_path / "b", "seed=1")
    assert any("one group" in text for text in said(tmp_path))


def test_a_run_without_an_evaluation_is_marked_and_counted(tmp_path):
    for seed in range(2):
        fake_run(tmp_path / str(seed), f"seed={seed}", evaluated=seed == 0)
    assert any("no final evaluation: seed 1" in text for text in said(tmp_path))
    assert table(tmp_path, "Scores")["dqn"]["final evaluation"] == "1.00 (n=1)"


def test_a_run_that_goes_on_is_marked_and_its_old_report_unused(tmp_path):
    folder = fake_run(tmp_path / "a", "seed=0", end=500)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert any("running, at step 500 of 1,000" in text for text in said(tmp_path))
        assert groups_of(tmp_path)[0].all_runs[0].final is None
    assert groups_of(tmp_path)[0].all_runs[0].final == 1.0
    assert any("may be older than its log: seed 0 (stopped, at step 500 of 1,000)" in text for text in said(tmp_path))


@pytest.mark.parametrize("torn", ['{"step": 1050, "rollout/sc', "\x00\x00\n", "7\n", '{"step": "x"}\n', "[" * 10_000])
def test_a_torn_line_is_skipped_with_a_line(torn, tmp_path, caplog):
    fake_run(tmp_path / "a", torn=torn)
    assert len(groups_of(tmp_path)[0].all_runs[0].rows) == 20
    assert "1 torn or damaged" in caplog.text


def test_values_that_are_no_numbers_are_no_points(tmp_path):
    torn = "".join(json.dumps({"step": 1000, SCORE: value}) + "\n" for value in (None, "x", True, float("nan"), [1]))
    fake_run(tmp_path / "a", torn=torn)
    assert len(groups_of(tmp_path)[0].all_runs[0].series(SCORE)[0]) == 20


NO_RUN = {
    "a pretraining": ("source: {name: idx}\nseed: 0\n", "not a training of an agent"),
    "aliases": ("a: &a [1]\nb: *a\n", "alias"),
    "no yaml": ("a: [", "not a config"),
    "a tag": ("!!python/object/apply:os.system [ls]", "not a config"),
    "no keys": ("7", "not a config"),
    "no seed": ("env: {name: toy}\nagent: {name: dqn}\n", "no seed"),
}


@pytest.mark.parametrize("what", NO_RUN)
def test_what_is_no_training_is_left_out_with_a_line(what, tmp_path, caplog):
    fake_run(tmp_path / "a")
    content, line = NO_RUN[what]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").write_text(content)
    (tmp_path / "b" / "metrics.jsonl").write_text("")
    assert labels(tmp_path) == ["dqn"]
    assert line in caplog.text


@pytest.mark.parametrize("report", ["", "[", "[]", "{}", '{"summary": 7}'])
def test_a_damaged_report_leaves_the_run_out(report, tmp_path, caplog):
    fake_run(tmp_path / "a")
    fake_run(tmp_path / "b", "seed=1")
    (tmp_path / "b" / "report.json").write_text(report)
    assert len(groups_of(tmp_path)[0].all_runs) == 1
    assert "report.json is not a" in caplog.text


@pytest.mark.parametrize("training", [{"games": [5]}, {"games": 7}, {"games": [], "steps": None}, {"config": 3}])
def test_a_damaged_kept_report_is_left_out_by_its_name(training, tmp_path, caplog):
    whole = fake_run(tmp_path / "a")
    training = {"config": (whole / "config.yaml").read_text(), "games": [[1, 2.0]], "steps": 10} | training
    report = json.loads((whole / "report.json").read_text()) | {"training": training}
    (tmp_path / "kept.json").write_text(json.dumps(report))
    assert len(groups_of(tmp_path / "a", tmp_path / "kept.json")[0].all_runs) == 1
    assert "kept.json" in caplog.text


@pytest.mark.parametrize("word", ["nowhere", "empty", "no*thing"])
def test_no_runs(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=f"no runs in {word.replace('*', '.')}: expected run folders"):
        find_runs([word])


def test_runs_are_found_once_by_path_folder_and_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(study(tmp_path, 2))
    assert len(find_runs(["none/s0"])) == 1
    assert len(find_runs(["none"])) == 2
    assert len(find_runs(["*/s1", "**/s1", "none", str(tmp_path / "none")])) == 4


def test_a_metric_that_nobody_logged(tmp_path):
    fake_run(tmp_path / "a")
    with pytest.raises(ValueError, match="no run has logged values of eval/mean"):
        compare(groups_of(tmp_path), metric="eval/mean")
