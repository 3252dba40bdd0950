import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

import evaluate as evaluation
from agents import DQNConfig
from analysis.play import play_games
from aux_tasks import TaskConfig
from configs.schema import Config
from encoders import EncoderConfig
from envs import AtariConfig, DmcConfig, SingleEnv, ToyConfig, build_env
from evaluate import (
    PROTOCOLS,
    Report,
    SB3Policy,
    choose_protocol,
    evaluate,
    explained,
    greedy,
    main,
    parse,
    write_report,
)
from experiment.build import build_agent, build_streams
from experiment.composition import write_config
from replay import ReplayConfig

TOY = ToyConfig(balls=2)


@pytest.fixture(scope="module")
def config():
    aux = {"rotation": TaskConfig(), "permutation": TaskConfig(options={"crop_rows": [12, 24]})}
    return Config(TOY, DQNConfig(), EncoderConfig("nature"), ReplayConfig(), aux, device="cpu")


@pytest.fixture(scope="module")
def agent(config):
    env = build_env(TOY)
    return build_agent(config, env.frame_shape, env.action_space, build_streams(3, torch.device("cpu")))[0]


@pytest.fixture
def checkpoint(tmp_path, config, agent):
    folder = tmp_path / "zoo"
    folder.mkdir()
    write_config(config, folder / "config.yaml")
    export_agent(agent, SPACE, folder)
    return folder


def test_one_command_leaves_report_video_and_maps(checkpoint, tmp_path, capsys):
    video, maps = tmp_path / "game.mp4", tmp_path / "maps"
    arguments = [f"checkpoint={checkpoint}", "episodes=7", "num_envs=3", f"video={video}", f"attribution={maps}"]
    assert main(arguments) == 0
    report = json.loads((checkpoint / "report-env.json").read_text())
    assert capsys.readouterr().out == f"mean {np.mean(report['returns']):.2f} over 7 episodes\n"
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
    assert meta["size"] == (4 * 336, 336 + 24)  # the game, Q, two tasks
    assert meta["duration"] == pytest.approx(24 / 6, abs=0.2)
    assert 4 <= len(list(maps.glob("moment_*.png"))) <= 8


def test_the_report_is_the_same_but_for_the_clock(checkpoint, tmp_path):
    reports = []
    for seed in (5, 5, 6):
        path = tmp_path / "report.json"
        assert main([f"checkpoint={checkpoint}", "episodes=40", f"seed={seed}", f"json={path}"]) == 0
        reports.append({k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"})
    assert reports[0] == reports[1]
    assert reports[0]["returns"] != reports[2]["returns"]


def test_saved_and_live_agents_score_the_same(checkpoint, agent):
    report = evaluate(agent, TOY, 4, PROTOCOLS["env"], episodes=12, seed=2, num_envs=5)
    main([f"checkpoint={checkpoint}", "episodes=12", "seed=2", "num_envs=5"])
    assert json.loads((checkpoint / "report-env.json").read_text())["returns"] == report.returns


def test_evaluating_touches_neither_the_agent_nor_its_streams(agent):
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    explore, torch_state = agent.explore_rng.bit_generator.state, torch.get_rng_state()
    evaluate(agent, TOY, 4, PROTOCOLS["env"], episodes=3)
    assert agent.explore_rng.bit_generator.state == explore
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(torch.equal(before[k], v) for k, v in agent.state_dict().items())


def test_more_copies_than_games_are_not_built(agent):
    assert evaluate(agent, TOY, 4, PROTOCOLS["env"], episodes=2, num_envs=8).env.num_envs == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("episode=3", "unknown option 'episode=3': did you mean 'episodes=...'?"),
        ("video", "unknown option 'video': did you mean 'video=...'?"),
        ("episodes=many", "episodes=many: expected a whole number"),
        ("episodes=0", "episodes=0: must be at least 1"),
        ("protocol=natur", "unknown protocol 'natur': did you mean 'nature'?"),
        ("protocol=nature", "protocol=nature is for Atari games: use protocol=env"),
        ("video=game.gif", "video=game.gif: the file must end in .mp4"),
        ("checkpoint=nowhere", "nowhere/config.yaml does not exist"),
    ],
)
def test_bad_arguments_get_one_line(checkpoint, capsys, argument, message):
    assert main([f"checkpoint={checkpoint}", argument]) == 2
    output = capsys.readouterr()
    assert output.err.startswith(f"error: {message}")
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize("step", ["load_agent", "evaluate"])
def test_a_machine_that_cannot_draw_gets_one_line(checkpoint, capsys, monkeypatch, step):
    def fail(*_):
        raise RuntimeError("nothing renders MuJoCo here")

    monkeypatch.setattr(f"evaluate.{step}", fail)
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 2
    assert capsys.readouterr().err == "error: nothing renders MuJoCo here\n"


def test_the_checkpoint_is_required():
    with pytest.raises(ValueError, match=r"checkpoint=\.\.\. is missing"):
        parse(["episodes=3"])


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


def test_weights_are_for_everyone_and_may_come_without_a_checksum(checkpoint):
    path = checkpoint / "agent.safetensors"
    assert path.stat().st_mode == (checkpoint / "config.yaml").stat().st_mode
    save_file(load_file(path), path)
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 0


@pytest.mark.parametrize(
    "argument", ["json={}/config.yaml/a/b.json", "json={}", "video={}/config.yaml/a.mp4", "attribution={}/config.yaml"]
)
def test_what_cannot_be_written_is_told_before_the_games(checkpoint, capsys, monkeypatch, argument):
    monkeypatch.delattr("evaluate.evaluate")
    argument = argument.format(checkpoint)
    assert main([f"checkpoint={checkpoint}", argument]) == 2
    assert re.fullmatch(f"error: {argument}: .* folder\n", capsys.readouterr().err)


def test_a_compiled_agent_is_judged_without_a_compiler(checkpoint, config, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "compile", None)
    write_config(replace(config, agent=DQNConfig(compile=True)), checkpoint / "config.yaml")
    assert main([f"checkpoint={checkpoint}", "episodes=1"]) == 0


def test_help_names_every_option(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name in ("checkpoint", "episodes", "protocol", "json", "video", "attribution", "seed", "num_envs"):
        assert f"\n  {name}=" in text
    assert "full games to play [100]" in text


@pytest.mark.parametrize(
    ("name", "sticky", "noop_max", "max_frames", "epsilon"),
    [
        ("nature", 0.0, 30, 18_000, 0.05),
        ("rainbow", 0.0, 30, 108_000, 0.001),
        ("ale_v5", 0.25, 0, 108_000, 0.001),
        ("machado", 0.25, 0, 18_000, 0.01),
        ("env", 0.1, 7, 999, 0.0),
    ],
)
def test_protocols(name, sticky, noop_max, max_frames, epsilon):
    run = AtariConfig(game="breakout", full_actions=name == "machado", sticky=0.1, noop_max=7, max_frames=999, size=80)
    played = PROTOCOLS[name].apply(run)
    assert (played.sticky, played.noop_max, played.max_frames) == (sticky, noop_max, max_frames)
    assert (played.game, played.size, played.life_loss) == ("breakout", 80, False)
    assert PROTOCOLS[name].epsilon == epsilon


def test_protocols_by_default_and_where_they_do_not_fit():
    assert choose_protocol(None, AtariConfig()).name == "nature"
    assert choose_protocol(None, TOY).name == "env"
    with pytest.raises(ValueError, match=r"protocol=machado .*full_actions=true"):
        PROTOCOLS["machado"].apply(AtariConfig())


def test_dm_control_is_judged_before_unseen_backgrounds_and_reported_in_environment_steps(checkpoint, tmp_path):
    run = DmcConfig("cartpole", "swingup", background="gas")
    protocol = choose_protocol(None, run)
    played = protocol.apply(run)
    assert (protocol.name, protocol.epsilon, played.background_split) == ("env", 0.0, "eval")
    with pytest.raises(ValueError, match="protocol=nature is for Atari games: use protocol=env"):
        PROTOCOLS["nature"].apply(run)
    report = Report({"mean": 2.0}, [1.0, 3.0], [125, 100], protocol, played, 3, 0, 1.5)
    write_report(report, tmp_path / "report.json", checkpoint, "python evaluate.py")
    content = json.loads((tmp_path / "report.json").read_text())
    assert (content["lengths"], content["env_steps"]) == ([125, 100], [1000, 800])
    assert {"dm-control", "mujoco"} <= content["versions"].keys()


def test_atari_games_are_full_games_of_raw_points():
    config = PROTOCOLS["ale_v5"].apply(AtariConfig(game="breakout"))
    assert not config.life_loss
    rng = np.random.default_rng(0)
    env = build_env(AtariConfig(**{**vars(config), "num_envs": 2}))
    games = play_games(lambda obs: rng.integers(4, size=len(obs)), env, 4, 0.0, 4, seed=0)
    assert all(length > 100 for _, length in games)  # five lives; one takes about 30 steps
    assert len(set(games)) == 4


def test_every_head_is_explained_as_it_sees_the_unchanged_pixels(agent):
    heads = explained(agent)
    assert list(heads) == ["Q", "rotation", "permutation"]
    obs = torch.randint(0, 256, (3, 4, 36, 36), dtype=torch.uint8)
    assert [heads[name](obs).shape for name in heads] == [(3, 3), (3, 4), (3, 4)]
    assert torch.equal(heads["Q"](obs), agent.q_values(obs))
    beyond = obs.clone()
    beyond[:, :, :12] = beyond[:, :, 24:] = 0  # the permutation task crops these rows
    assert torch.equal(heads["permutation"](beyond), heads["permutation"](obs))
    assert not torch.equal(heads["rotation"](beyond), heads["rotation"](obs))


def test_sb3_evaluates_our_agent_alike(agent):
    env = DummyVecEnv([lambda: SingleEnv(build_env(ToyConfig(num_envs=1, balls=2)), frame_stack=4)])
    env.seed(0)
    scores, lengths = evaluate_policy(
        SB3Policy(agent),
        env,
        n_eval_episodes=60,
        return_episode_rewards=True,
        warn=False,
    )
    ours = evaluate(agent, TOY, 4, PROTOCOLS["env"], episodes=60).returns
    assert lengths == [23] * 60
    assert np.mean(scores) == pytest.approx(np.mean(ours), abs=0.6)


def test_greedy_does_not_explore(agent):
    obs = np.random.default_rng(0).integers(256, size=(5, 4, 36, 36), dtype=np.uint8)
    expected = agent.q_values(torch.from_numpy(obs)).argmax(1).numpy()
    np.testing.assert_array_equal(greedy(agent)(obs), expected)


def test_the_script_runs_from_anywhere(checkpoint, tmp_path):
    command = [sys.executable, str(Path(evaluation.__file__)), f"checkpoint={checkpoint}", "episodes=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"mean -?\d+\.\d\d over 2 episodes", done.stdout.splitlines()[-1])
