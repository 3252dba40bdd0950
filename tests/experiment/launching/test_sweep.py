"""Several runs at once."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import train
from experiment.launching.launch import launch
from experiment.launching.sweep import LocalLauncher, Run, gpu_sharing
from harness.process import exclusive

TRAIN = [sys.executable, str(Path(__file__).parents[3] / "train.py")]
TOY = [
    "env=toy",
    "encoder=small",
    "batch_size=4",
    "replay.capacity=1000",
    "learning_starts=60",
    "log_every=60",
    "diagnose_every=0",
]
TOY += ["checkpoint_every=60", "eval_episodes=0"]


def test_runs_go_on_when_one_fails(tmp_path):
    words = [*TOY, "steps=120", "encoder=nature", "env.size=12,36", "seed=0,1", "sweep.jobs=2", "agent.precision=auto"]
    done = subprocess.run([*TRAIN, "-m", *words], cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 2
    printed = done.stderr.replace("\n", " ")
    assert printed.count("failed (exit code 2)") == 2, "Nature's convolutions do not fit 12 pixels"
    assert "env.size=12 seed=1" in printed
    rows = [json.loads(path.read_text().splitlines()[-1]) for path in tmp_path.rglob("metrics.jsonl")]
    assert [row["step"] for row in rows] == [120, 120]
    configs = [path.read_text() for path in tmp_path.rglob("config.yaml")]
    assert len({re.search("precision: (float32|bfloat16)\n", config)[1] for config in configs}) == 1


def test_interrupted_sweep_saves_every_run_and_continues(tmp_path):
    words = ["-m", *TOY, "steps=100000", "seed=0,1", "sweep.jobs=2", "run_dir=null"]
    process = subprocess.Popen([*TRAIN, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while len(logs := list(tmp_path.rglob("metrics.jsonl"))) < 2 or not all(log.read_text() for log in logs):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed

    newest = [max(int(step.name[5:]) for step in log.parent.glob("checkpoints/step_*")) for log in logs]
    words[words.index("steps=100000")] = f"steps={max(newest) + 120}"
    done = subprocess.run([*TRAIN, *words], cwd=tmp_path, check=True, timeout=200, capture_output=True, text=True)
    assert f"python compare.py {logs[0].parents[1].relative_to(tmp_path)}\n" in done.stderr
    for log, saved in zip(logs, newest, strict=True):
        steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
        assert steps == sorted(set(steps))
        assert steps[-1] == max(newest) + 120 > saved


@pytest.mark.slow
def test_ray_continues_a_run_whose_worker_was_killed(tmp_path):
    """The final weights are those of an undisturbed run, bit for bit."""
    pytest.importorskip("ray")
    words = [*TOY, "steps=420", "seed=0"]
    alone = [*TRAIN, *words, "threads=1", "run_dir=undisturbed"]
    subprocess.run(alone, cwd=tmp_path, check=True, capture_output=True, timeout=200)
    expected = (tmp_path / "undisturbed" / "agent.safetensors").read_bytes()

    words[words.index("seed=0")] = "seed=0,1"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    sweep = subprocess.Popen(
        [*TRAIN, "-m", "sweep=ray", *words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not (saved := list(tmp_path.glob("runs/**/s0/checkpoints/step_*"))):
        assert sweep.poll() is None, sweep.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    processes = psutil.Process(sweep.pid).children(recursive=True)
    next(p for p in processes if "seed=0" in p.cmdline() and "-m" not in p.cmdline()).parent().kill()
    _, printed = sweep.communicate(timeout=250)
    assert sweep.returncode == 0, printed
    folder = saved[0].parents[1]
    assert (folder / "agent.safetensors").read_bytes() == expected
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(60, 421, 60))
    assert re.search(r"step [1-9]\d* of 420", folder.with_name("s0.log").read_text()), "the second try resumed"


def test_the_log_of_a_run_that_goes_on_is_kept(tmp_path):
    folder = tmp_path / "s0"
    folder.mkdir()
    run = Run("", ("-c", "print('second')"), folder, None)
    run.output.write_text("first\n")
    with exclusive(folder):
        run.start(LocalLauncher([sys.executable], 1))
        run.process.wait()
    assert run.output.read_text() == "first\nsecond\n"
    run.start(LocalLauncher([sys.executable], 1))
    run.process.wait()
    assert run.output.read_text() == "second\n"


def test_an_error_of_the_sweep_saves_and_ends_its_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started, start = [], Run.start

    def fail_at_the_second(self, launcher):
        if started:
            raise FileExistsError("no folder")
        start(self, launcher)
        started.append(self)

    monkeypatch.setattr(Run, "start", fail_at_the_second)
    words = ["-m", *TOY, "steps=100000", "seed=0,1", "sweep.jobs=2"]
    assert train.main(words) == 2
    assert started[0].process.wait(60) in (-signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["seed=range(0)"], "seed=range(0) has no value"),
        (["seed=0,1", "run_dir=here"], "two runs share the folder here"),
        (["seed=0,0"], "two runs share the folder"),
        (["seed=0,1", "sweep.jobs=two"], "jobs"),
        (["seed=0,1", "sweep.jobs=-1"], "sweep.jobs must be at least 0, got -1"),
        (["seed=0,1", "sweep.cpus=1"], "sweep.jobs"),
        (["seed=0,1", "sweep=slurm"], "local, ray"),
        (["seed=0,1", "sweep=ray", "sweep.gpus=-1"], "sweep.gpus"),
    ],
)
def test_wrong_sweep_is_one_line(words, named, capsys):
    assert launch(pytest.fail, "config", ["-m", "env=toy", *words], module=__name__) == 2
    assert named in capsys.readouterr().err.replace("\n", " ")


def test_whether_runs_share_a_gpu_side_by_side_is_known_by_the_pipe_of_mps(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert gpu_sharing().startswith("in turns")
    (tmp_path / "control").touch()
    assert gpu_sharing() == "side by side under MPS"
