import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import run_help
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

import evaluate as script
from agents import DQNConfig, SACConfig
from analysis.episode import attribution_targets
from analysis.evaluation import Report, evaluate, write_report
from analysis.picture import GAP
from analysis.policies import greedy
from aux_tasks import TaskConfig
from configs.schema import Config
from encoders import EncoderConfig
from envs import AtariConfig, DmcConfig, Observation, Rollout, SingleEnv, ToyConfig
from evaluate import main
from experiment.command_line.composition import write_config
from experiment.sb3 import SB3Policy
from experiment.training import build
from replay import ReplayConfig

TOY = ToyConfig(balls=2)


@pytest.fixture(scope="module")
def config():
    aux = {"rotation": TaskConfig(), "permutation": TaskConfig(options={"crop_rows": [12, 24]})}
    return Config(TOY, DQNConfig(), EncoderConfig("nature"), ReplayConfig(), aux, device="cpu")


@pytest.fixture(scope="module")
def agent(config, tmp_path_factory):
    return run_help.exported_agent(config, tmp_path_factory.mktemp("agent"))


@pytest.fixture
def checkpoint(tmp_path, config, monkeypatch):
    """A run of the working folder."""
    monkeypatch.chdir(tmp_path)
    run_help.exported_agent(config, tmp_path / "runs" / "toy")
    return tmp_path / "runs" / "toy"


def test_an_agent_trained_on_a_gpu_plays_on_a_cpu(checkpoint, capsys):
    path = checkpoint / "config.yaml"
    path.write_text(path.read_text().replace("device: cpu", "device: cuda"))
    assert "device: cuda" in path.read_text()
    assert main([f"checkpoint={checkpoint}", "episodes=2", "device=cpu"]) == 0
    assert capsys.readouterr().out.startswith("mean ")


def test_each_run_of_a_sweep_has_a_report_of_its_own(checkpoint, capsys):
    words = [str(checkpoint), "episodes=1", "device=cpu"]
    assert main(["-m", *words, "seed=3,4"]) == 0
    for seed in (3, 4):
        report = json.loads((checkpoint / f"report-env-seed={seed}.json").read_text())
        assert report["seed"] == seed
        assert report["command"].endswith(f"episodes=1 device=cpu seed={seed}")
        assert " -m " not in report["command"]
    capsys.readouterr()
    assert main(["-m", *words, "seed=3,4", "json=out.json"]) == 2
    assert "json=out.json: all runs of this sweep would write it, leave json out" in capsys.readouterr().err


def test_one_command_leaves_report_video_and_maps(checkpoint, tmp_path, capsys):
    video, maps = tmp_path / "game.mp4", tmp_path / "maps"
    arguments = [f"checkpoint={checkpoint}", "episodes=7", "num_envs=3", f"video={video}", f"attribution={maps}"]
    assert main(arguments) == 0
    report = json.loads((checkpoint / "report-env.json").read_text())
    assert capsys.readouterr().out.startswith(f"mean {np.mean(report['returns']):.2f} over 7 episodes, 95 % interval")
    assert len(report["returns"]) == len(report["lengths"]) == report["summary"]["n"] == 7
    assert report["summary"]["distinct"] == len(set(report["returns"]))
    assert report["lengths"] == [23] * 7
    assert report["protocol"]["name"] == "env"
    assert report["env"]["num_envs"] == 3
    assert report["command"].startswith("python evaluate.py checkpoint=")
    assert report["versions"]["torch"] == torch.__version__
    weights = (checkpoint / "agent.safetensors").read_bytes()
    assert report["sha256"]["agent.safetensors"] == hashlib.sha256(weights).hexdigest()
    meta = next(imageio_ffmpeg.read_frames(str(video)))
    assert meta["size"] == (4 * 336 + 3 * GAP, 336 + 24)  # the game, Q, two tasks
    assert meta["duration"] == pytest.approx(24 / 6, abs=0.2)
    moments = len(list(maps.glob("moment_*.png")))
    assert 4 <= moments <= 8
    heads = json.loads((maps / "agreement.json").read_text())["heads"]
    assert {name: len(head["of_moments"]) for name, head in heads.items()} == dict.fromkeys(
        ("Q", "rotation", "permutation"), moments
    )


@pytest.fixture
def foreign(checkpoint, tmp_path):
    return checkpoint.rename(tmp_path / "downloaded")


def test_results_of_a_foreign_agent_go_into_runs(foreign, tmp_path, caplog):
    victim, before = tmp_path / "victim", sorted(path.name for path in foreign.iterdir())
    victim.write_text("mine")
    names = ["report-env.json", ".report-env.json.tmp", "report.json"]
    for name in names:
        (foreign / name).symlink_to(victim)
    caplog.set_level("INFO")
    assert main([str(foreign), "episodes=2"]) == 0
    report = Path("runs/evaluations/downloaded/report-env.json")
    assert json.loads(report.read_text())["checkpoint"] == str(foreign)
    assert str(report) in caplog.text
    assert victim.read_text() == "mine"
    assert sorted(path.name for path in foreign.iterdir()) == sorted(before + names)


def test_results_are_not_written_through_links(checkpoint, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "maps").mkdir()
    for path in ("runs/toy/report-env.json", "game.mp4", ".game.part.mp4", "maps/moment_0.png"):
        (tmp_path / path).symlink_to(victim)
    assert main(["runs/toy", "episodes=1", "video=game.mp4", "attribution=maps"]) == 0
    assert victim.read_text() == "mine"
    assert [path.name for path in tmp_path.rglob("*") if path.is_symlink()] == [".game.part.mp4"]


def test_backgrounds_of_a_foreign_config_are_named_by_the_user_or_not_used(foreign, config, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(DmcConfig, "protocol", lambda self, name: pytest.fail(seen.append(self.background_folder)))
    dmc = DmcConfig(background="video", background_folder="/home/me/films")
    write_config(replace(config, env=dmc), foreign / "config.yaml")
    assert main([str(foreign)]) == 2
    assert "names background_folder=/home/me/films" in capsys.readouterr().err
    with pytest.raises(pytest.fail.Exception):
        main([str(foreign), "background_folder=mine"])
    assert seen == ["mine"]
    write_config(config, foreign / "config.yaml")
    assert main([str(foreign), "background_folder=mine"]) == 2
    assert "env=toy has no backgrounds" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["runs/toy", "json=closed/report.json", "video=closed/a/b.mp4", "attribution=closed"])
def test_a_folder_that_cannot_be_written_is_found_before_the_first_episode(checkpoint, place, capsys, monkeypatch):
    monkeypatch.setattr(script, "evaluate", lambda *_: pytest.fail("played"))
    temporary, mkdir = tempfile.TemporaryFile, Path.mkdir

    def closed(path):
        if {"closed", "toy"} & {*Path(path).parts}:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: closed(dir) or temporary(dir=dir))
    monkeypatch.setattr(Path, "mkdir", lambda path, **options: closed(path) or mkdir(path, **options))
    assert main(list({"runs/toy", place} if "=" in place else [place])) == 2
    assert re.fullmatch(r"error: .*(closed|toy).* cannot be written: Permission denied\n", capsys.readouterr().err)


def test_a_disk_that_is_full_in_the_end_does_not_take_the_score(checkpoint, capsys, monkeypatch):
    def full(*_, columns):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(script, "write_report", full)
    assert main(["runs/toy", "episodes=2"]) == 2
    output = capsys.readouterr()
    assert output.out.startswith("mean ")
    assert "No space left" in output.err


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_leaves_the_games_played_so_far(checkpoint, capsys, monkeypatch, name, code):
    steps, original = 0, Rollout.step

    def step(*arguments):
        nonlocal steps
        steps += 1
        if steps == 30:  # of games of 23
            os.kill(os.getpid(), signal.Signals[name])
        return original(*arguments)

    monkeypatch.setattr(Rollout, "step", step)
    assert main(["runs/toy", "episodes=7", "num_envs=2", "video=game.mp4"]) == code
    report = json.loads((checkpoint / "report-env.json").read_text())
    assert (len(report["returns"]), report["partial"]) == (2, True)
    assert re.fullmatch(r"mean .* over 2 of 7 episodes.*\n", capsys.readouterr().out)
    assert not Path("game.mp4").exists()


def test_a_signal_before_the_first_game_ends_is_no_traceback(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr(Rollout, "reset", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setattr(Rollout, "episodes", [], raising=False)
    assert main(["runs/toy"]) == 130
    assert "Traceback" not in capsys.readouterr().err
    assert not (checkpoint / "report-env.json").exists()


def test_the_report_is_the_same_but_for_the_clock(checkpoint, tmp_path):
    reports = []
    for seed in (5, 5, 6):
        path = tmp_path / "report.json"
        assert main([f"checkpoint={checkpoint}", "episodes=40", f"seed={seed}", f"json={path}"]) == 0
        reports.append({k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"})
    assert reports[0] == reports[1]
    assert reports[0]["returns"] != reports[2]["returns"]


def test_saved_and_live_agents_score_the_same(checkpoint, agent):
    report = evaluate(greedy(agent), TOY.protocol(), 4, episodes=12, seed=2, num_envs=5)
    main([f"checkpoint={checkpoint}", "episodes=12", "seed=2", "num_envs=5"])
    assert json.loads((checkpoint / "report-env.json").read_text())["returns"] == report.returns


def test_evaluating_touches_neither_the_agent_nor_its_streams(agent):
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    explore, torch_state = agent.streams.explore.bit_generator.state, torch.get_rng_state()
    evaluate(greedy(agent), TOY.protocol(), 4, episodes=3)
    assert agent.streams.explore.bit_generator.state == explore
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(torch.equal(before[k], v) for k, v in agent.state_dict().items())


def test_more_copies_than_episodes_are_not_built(agent):
    assert evaluate(greedy(agent), TOY.protocol(), 4, episodes=2, num_envs=8).protocol.env.num_envs == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("episode=3", "unknown key 'episode': did you mean 'episodes'?"),
        ("video", "cannot read 'video': give key=value"),
        ("episodes=many", "episodes=many: must be a whole number"),
        ("episodes=0", "episodes must be at least 1, got 0"),
        ("protocol=natur", "unknown protocol 'natur' of env=toy: use protocol=env"),
        ("protocol=nature", "unknown protocol 'nature' of env=toy: use protocol=env"),
        ("video=game.gif", "video=game.gif: the file must end in .mp4"),
        ("checkpoint=nowhere", "nowhere/config.yaml does not exist"),
        ("checkpoint={}/agent.safetensors", "{}/agent.safetensors/config.yaml does not exist: give the folder {}"),
        ("checkpoint={}/..", "{}/../config.yaml does not exist: did you mean {}/../toy?"),
        ("checkpoint={}s", "{}s/config.yaml does not exist: did you mean {}?"),
        ("checkpoint=???", "checkpoint=... is missing"),
        ("device=tpu", "device must be one of auto, cpu, cuda, got 'tpu'"),
        ("threads=-1", "threads must be at least 0, got -1"),
        ("json={}/config.yaml/a/b.json", "{}/config.yaml/a/b.json cannot be written: Not a directory"),
        ("json={}", "{} is a folder"),
        ("video={}/config.yaml/a.mp4", "{}/config.yaml/a.mp4 cannot be written: {}/config.yaml is a file"),
        ("json=", "json= is empty"),
        ("video=", "video= is empty"),
        ("attribution=", "attribution= is empty"),
        ("background_folder=", "background_folder= is empty"),
        ("device=", "device= is empty"),
        ("threads=", "threads"),
        ("attribution={}/config.yaml", "{}/config.yaml/moment_0.png cannot be written: {}/config.yaml is a file"),
    ],
)
def test_mistakes_get_one_line_before_the_first_episode(checkpoint, capsys, monkeypatch, argument, message):
    monkeypatch.delattr(script, "evaluate")
    assert main([f"checkpoint={checkpoint}", argument.replace("{}", str(checkpoint))][argument[:6] == "checkp" :]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: " + message.replace("{}", str(checkpoint))), output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize("step", ["load_agent", "evaluate"])
def test_a_machine_that_cannot_draw_gets_one_line(checkpoint, capsys, monkeypatch, step):
    def fail(*_):
        raise RuntimeError("nothing renders MuJoCo here")

    monkeypatch.setattr(script, step, fail)
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 2
    assert capsys.readouterr().err == "error: nothing renders MuJoCo here\n"


@pytest.mark.parametrize("file", ["agent.safetensors", "config.yaml"])
@pytest.mark.parametrize("damage", ["cut", "pickle", "empty"])
def test_a_bad_checkpoint_gets_one_line(checkpoint, capsys, file, damage):
    path, canary = checkpoint / file, checkpoint / "canary"
    content = path.read_bytes()
    bad = {
        "cut": content[: len(content) // 3],
        "pickle": b"cpathlib\nPath.touch\n(cpathlib\nPath\n(V%s\ntRtR." % str(canary).encode(),
        "empty": b"",
    }
    path.write_bytes(bad[damage])
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .*\n", error), error
    assert str(path) in error
    assert not canary.exists()


@pytest.mark.parametrize("place", [-1, 0.5, 0.9])
def test_flipped_bytes_get_one_line(checkpoint, capsys, place):
    path = checkpoint / "agent.safetensors"
    content = bytearray(path.read_bytes())
    content[place if place < 0 else int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} is damaged: ")


def test_weights_are_for_everyone_and_say_for_which_observations_they_are(checkpoint, capsys):
    path = checkpoint / "agent.safetensors"
    assert path.stat().st_mode == (checkpoint / "config.yaml").stat().st_mode
    save_file(load_file(path), path)
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path} does not say for which observations and actions it is")


def test_loading_an_agent_builds_no_environment(checkpoint, monkeypatch):
    monkeypatch.setattr(ToyConfig, "build", lambda *_: pytest.fail("an environment was built"))
    build.load_agent(checkpoint)


def test_a_compiled_agent_is_evaluated_without_a_compiler(checkpoint, config, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", None)
    write_config(replace(config, agent=DQNConfig(compile=True)), checkpoint / "config.yaml")
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 0


def test_dm_control_is_evaluated_before_unseen_backgrounds_and_reported_in_environment_steps(checkpoint, tmp_path):
    protocol = DmcConfig(domain="cartpole", task="swingup", background="gas").protocol()
    assert (protocol.name, protocol.epsilon, protocol.env.background_split) == ("env", 0.0, "eval")
    report = Report({"mean": 2.0}, [1.0, 3.0], [125, 100], [999, 800], protocol, 3, 0, 1.5)
    write_report(report, tmp_path / "report.json", checkpoint / "agent.safetensors", "python evaluate.py")
    content = json.loads((tmp_path / "report.json").read_text())
    assert (content["lengths"], content["env_steps"]) == ([125, 100], [999, 800])
    assert (content["protocol"], content["env"]["name"]) == ({"name": "env", "epsilon": 0.0}, "dmc")
    assert {"dm-control", "mujoco"} <= content["versions"].keys()


def test_an_agent_before_backgrounds_has_three_columns_also_if_it_was_trained_without(checkpoint, tmp_path):
    dmc = DmcConfig(action_repeat=500, size=84)
    folder = tmp_path / "runs" / "clean"
    encoder = EncoderConfig("control_fast", feature_dim=4)
    config = Config(dmc, SACConfig(hidden=8), encoder, ReplayConfig(), {}, device="cpu", frame_stack=1)
    run_help.exported_agent(config, folder)
    out = tmp_path / "out.json"
    words = [f"checkpoint={folder}", "episodes=2", "num_envs=2", f"json={out}"]
    assert main(words) == 0
    clean = json.loads(out.read_text())
    assert "columns" not in clean
    assert main([*words, "background=noise"]) == 0
    report = json.loads(out.read_text())
    assert report["env"]["background_split"] == "eval"
    assert list(report["columns"]) == ["clean", "seen"]
    assert report["columns"]["clean"]["mean"] == clean["summary"]["mean"]
    assert main([*words, "background=noise", "protocol=clean"]) == 0
    assert json.loads(out.read_text())["returns"] == clean["returns"]


def test_atari_episodes_are_full_games_of_raw_points():
    rng = np.random.default_rng(0)
    protocol = AtariConfig(game="breakout").protocol("ale_v5")
    report = evaluate(lambda obs: rng.integers(4, size=len(obs.pixels)), protocol, 4, episodes=4, num_envs=2)
    assert min(report.lengths) > 100  # five lives; one takes about 30 steps
    assert len(set(zip(report.returns, report.lengths, strict=True))) == 4


def test_every_head_is_explained_as_it_sees_the_unchanged_pixels(agent):
    heads = attribution_targets(agent)
    assert list(heads) == ["Q", "rotation", "permutation"]
    obs = torch.randint(0, 256, (3, 4, 36, 36), dtype=torch.uint8)
    assert [heads[name](obs).shape for name in heads] == [(3, 3), (3, 4), (3, 4)]
    assert torch.equal(heads["Q"](obs), agent.q_values(obs))
    beyond = obs.clone()
    beyond[:, :, :12] = beyond[:, :, 24:] = 0  # the permutation task crops these rows
    assert torch.equal(heads["permutation"](beyond), heads["permutation"](obs))
    assert not torch.equal(heads["rotation"](beyond), heads["rotation"](obs))


def test_sb3_evaluates_our_agent_alike(agent):
    env = DummyVecEnv([lambda: SingleEnv(ToyConfig(num_envs=1, balls=2).build(), frame_stack=4)])
    env.seed(0)
    scores, lengths = evaluate_policy(
        SB3Policy(agent),
        env,
        n_eval_episodes=60,
        return_episode_rewards=True,
        warn=False,
    )
    ours = evaluate(greedy(agent), TOY.protocol(), 4, episodes=60).returns
    assert lengths == [23] * 60
    assert np.mean(scores) == pytest.approx(np.mean(ours), abs=0.6)


def test_stable_baselines3_may_ask_for_one_action(agent):
    batch = np.random.default_rng(0).integers(256, size=(5, 4, 36, 36), dtype=np.uint8)
    expected, state = SB3Policy(agent).predict(batch, deterministic=True)
    assert (expected.shape, state) == ((5,), None)
    actions = [SB3Policy(agent).predict(obs)[0] for obs in batch]
    assert all(isinstance(action, np.ndarray) and action.shape == () for action in actions)  # as theirs are
    assert actions == expected.tolist()


def test_greedy_does_not_explore(agent):
    obs = np.random.default_rng(0).integers(256, size=(5, 4, 36, 36), dtype=np.uint8)
    expected = agent.q_values(torch.from_numpy(obs)).argmax(1).numpy()
    np.testing.assert_array_equal(greedy(agent)(Observation(obs)), expected)


def test_the_script_runs_from_anywhere(checkpoint, tmp_path):
    command = [sys.executable, str(Path(script.__file__)), f"checkpoint={checkpoint}", "episodes=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"mean -?\d+\.\d\d over 2 episodes.*", done.stdout.splitlines()[-1])
