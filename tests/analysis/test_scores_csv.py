"""Scores of a user's own: CSV, and the monitor of Stable-Baselines3."""

from pathlib import Path

import pytest
from compare_help import fake_run

from analysis.comparison.groups import group_runs
from analysis.comparison.measure import compare
from analysis.comparison.notes import notes
from analysis.comparison.runs import SCORE, find_runs, read_runs
from analysis.comparison.scores_csv import read_published, read_scores, with_seed
from compare import IGNORED

MONITOR = '#{"t_start": 1.5, "env_id": "toy"}\nr,l,t\n-1.0,10,0.5\n2.0,30,1.25\n'


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_csv_of_one_run_and_of_several(tmp_path):
    one = written(tmp_path / "one.csv", "Step, score\n20,2\n10,1.5\n")
    assert read_scores(one) == {None: [(10, 1.5, None), (20, 2.0, None)]}
    several = written(tmp_path / "several.csv", "seed,score,step,more\n3,1,10,0\n4,2,10,0\n3,5,20,x\n")
    assert read_scores(several) == {3: [(10, 1.0, None), (20, 5.0, None)], 4: [(10, 2.0, None)]}


def test_a_monitor_counts_its_episodes(tmp_path):
    path = written(tmp_path / "monitor.csv", MONITOR)
    assert read_scores(path) == {None: [(10, -1.0, 0.5), (40, 2.0, 1.25)]}


def test_stable_baselines3_writes_such_a_monitor(tmp_path):
    gymnasium, monitor = pytest.importorskip("gymnasium"), pytest.importorskip("stable_baselines3.common.monitor")
    env = monitor.Monitor(gymnasium.make("CartPole-v1"), str(tmp_path / "0"))
    env.reset(seed=0)
    steps = 0
    for _ in range(2):
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over, steps = terminated or truncated, steps + 1
        env.reset()
    env.close()
    ((_, rows),) = read_scores(tmp_path / "0.monitor.csv").items()
    assert [row[0] for row in rows][-1] == steps
    assert sum(row[1] for row in rows) == steps  # a reward of one a step


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected step and score"),
        ("a,b\n1,2\n", "has the columns a, b"),
        ("step,score\n", "no rows"),
        ("step,score\n1,2\n2,x\n", r"wrong.csv:3: score is 'x'"),
        ("step,score\n1,nan\n", r"wrong.csv:2: score is 'nan'"),
        ("step,score\n1\n", r"wrong.csv:2 has 1 cells, the header 2"),
        ("#{}\nr,l,t\n1,x,3\n", r"wrong.csv:3: l is 'x'"),
    ],
)
def test_what_is_wrong_with_a_csv(text, told, tmp_path):
    with pytest.raises(ValueError, match=told):
        read_scores(written(tmp_path / "wrong.csv", text))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("ppo.csv", ("ppo", 0)),
        ("ppo-s3.csv", ("ppo", 3)),
        ("ppo_seed3.csv", ("ppo", 3)),
        ("results1.csv", ("results1", 0)),
        ("ppo/s2.csv", ("ppo", 2)),
        ("ppo/s2/monitor.csv", ("ppo", 2)),
        ("ppo/2.monitor.csv", ("ppo", 2)),
        ("ppo/monitor.csv", ("ppo", 0)),
    ],
)
def test_the_path_tells_label_and_seed(path, expected):
    assert with_seed(Path("/somewhere") / path) == expected


def test_a_file_is_compared_and_marked(tmp_path):
    fake_run(tmp_path / "run", score=2)
    written(tmp_path / "sb3" / "0.monitor.csv", MONITOR)
    written(tmp_path / "mine.csv", "step,score,seed\n10,1,0\n1000,5,0\n10,1,1\n1000,7,1\n")
    words = [str(tmp_path / name) for name in ("run", "sb3/0.monitor.csv", "mine.csv")]
    comparison = compare(group_runs(read_runs(find_runs(words)), IGNORED))
    run, mine, sb3 = comparison.of_task("toy")
    assert [cell.group.label for cell in (run, mine, sb3)] == ["dqn", "mine (file)", "sb3 (file)"]
    assert mine.values("last") == [5, 7]
    assert sb3.values("final") == []
    marked = [note.labels for note in notes(comparison) if "protocol is not known" in note.text]
    assert marked == [("mine (file)",), ("sb3 (file)",)]


def test_files_alone_are_compared_too(tmp_path):
    path = written(tmp_path / "a.csv", "step,score\n1,2\n5,3\n")
    (run,) = read_runs([path])
    assert (run.task, run.series(SCORE)[1].tolist()) == ("scores", [2, 3])


def test_a_file_beside_several_tasks_is_refused(tmp_path):
    fake_run(tmp_path / "a")
    fake_run(tmp_path / "b", "env=pointmass", "agent=sac")
    with pytest.raises(ValueError, match=r"which of the tasks pointmass, toy"):
        read_runs([tmp_path / "a", tmp_path / "b", written(tmp_path / "a.csv", "step,score\n1,2\n")])


def test_a_published_curve(tmp_path):
    curve = read_published(written(tmp_path / "paper.csv", "step,score,low,high\n2,3,2,4\n1,2,1,3\n"))
    assert (curve.label, curve.steps.tolist(), curve.low.tolist()) == ("paper", [1, 2], [1, 2])
    assert read_published(written(tmp_path / "plain.csv", "step,score\n2,3\n")).high is None
    with pytest.raises(ValueError, match="expected step and score"):
        read_published(written(tmp_path / "wrong.csv", "x,y\n2,3\n"))
    with pytest.raises(ValueError, match=r"empty\.csv has no rows"):
        read_published(written(tmp_path / "empty.csv", "step,score\n"))
