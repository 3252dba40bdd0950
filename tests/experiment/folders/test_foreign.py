"""Folders of other people: a config is data, its paths are not used, and results go elsewhere."""

import json
import os
import struct
import time
from pathlib import Path

import pytest
import run_help

from configs.schema import Config, GoalConfig, PretrainConfig, ProbeConfig
from configs.sources import FramesConfig, IdxConfig, ImagesConfig, ReplayRunConfig, SourceConfig, VideosConfig
from encoders import EncoderConfig
from envs import DmcConfig, ToyConfig
from experiment.command_line.composition import complete, read_config, write_config
from experiment.folders.foreign import check_paths, results_folder
from experiment.folders.weights import read_shapes, read_weights
from experiment.folders.zoo import SHIPPED
from experiment.probing import build as probing
from experiment.sources.build import build_source

BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
BAD = {
    "secret": ("device: ${oc.env:SECRET}", "interpolation"),
    "secret in a key": ("${oc.env:SECRET}: 1", "interpolation"),
    "secret within text": ("device: 'a ${oc.env:SECRET} b'", "interpolation"),
    "interpolation of another key": ("device: ${seed}", "interpolation"),
    "alias": ("steps: &x 3\nbatch_size: *x", "alias"),
    "aliases that grow": (BOMB, "alias"),
    "itself": ("aux: &x\n  rotation: *x", "alias"),
    "deep": ("aux: " + "[" * 5_000, "deep"),
    "deep and closed": ("aux: " + "[" * 1_000 + "]" * 1_000, "deep"),
    "deep blocks": ("\n".join(f"{' ' * i}a:" for i in range(300)), "deep"),
    "long": ("steps: 3\n" + "# x\n" * 20_000, "larger"),
    "code": ("device: !!python/object/apply:os.system [touch canary]", "config.yaml"),
    "list": ("- 3", "no keys"),
    "a number": ("7", "no keys"),
    "a key twice": ("steps: 3\nsteps: 4", "duplicate key"),
    "nothing": ("", "config.yaml"),
    "bytes": ("device: \xff", "config.yaml"),
    "a large number": ("steps: " + "9" * 5_000, "config.yaml"),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
def test_a_config_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setenv("SECRET", "swordfish")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="latin-1")
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as raised:
        read_config(path, Config)
    assert time.perf_counter() - start < 5
    assert "swordfish" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not Path("canary").exists()


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_config_is_a_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.yaml"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    with pytest.raises(ValueError, match="not a regular file"):
        read_config(path, Config)


def weights(metadata: str, tensors: str = "{}") -> bytes:
    """A safetensors file with that entry for the network."""
    header = json.dumps({"__metadata__": {"network": metadata}, **json.loads(tensors)}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "sparse", "deep header", "list", "long header"])
def test_weights_are_a_file_of_their_size(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "agent.safetensors"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "sparse":
            with path.open("wb") as file:
                file.truncate(1 << 42)
        case "deep header":
            path.write_bytes(weights("[" * 100_000))
        case "list":
            path.write_bytes(weights("[]"))
        case "long header":
            path.write_bytes(struct.pack("<Q", 1 << 62))
    with pytest.raises(ValueError, match=str(path)) as raised:
        read_weights(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shape", ["[1e999, 84, 84]", "[4, 84]", '"4"', "null", '{"a": 1}', "[[4], 84, 84]"])
def test_odd_shapes_in_the_header_are_one_line(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(weights(f'{{"obs_shape": {shape}, "num_actions": 3}}'))
    with pytest.raises(ValueError, match="does not say for which observations"):
        read_shapes(path)


def test_what_a_run_writes_is_read_as_it_was(tmp_path: Path) -> None:
    config = complete(run_help.hard(Path("1e3"), learning_starts=30))
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml", Config) == config


PARTS = {
    "background": DmcConfig(background="video", background_folder="/home/me/films"),
    "images": ImagesConfig(folder="/home/me/pictures"),
    "videos": VideosConfig(folder="/home/me/films"),
    "idx": IdxConfig(folder="/home/me"),
    "replay": ReplayRunConfig(run="/home/me/run"),
    "recording to write": FramesConfig(path="/home/me/frames"),
    "policy": FramesConfig(policy="/home/me/run"),
    "encoder": EncoderConfig(init="/home/me/encoder.safetensors"),
    "goal space": GoalConfig(space="/home/me/space"),
}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_paths_of_a_foreign_config_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: object) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"names \w+=/home/me.*give it"):
        check_paths(tmp_path / "downloaded", part, "give it")
    check_paths(Path("runs/mine"), part, "give it")


def test_a_demonstration_of_a_foreign_config_is_not_read_where_its_goal_space_lies_beside_it(tmp_path: Path) -> None:
    goal = GoalConfig(space="runs/space", demonstration="/home/me/film.mp4")
    with pytest.raises(ValueError, match=r"names demonstration=/home/me/film.mp4"):
        check_paths(tmp_path, goal, "", allowed={"space"})
    check_paths(tmp_path, GoalConfig(space="runs/space"), "", allowed={"space"})


@pytest.mark.parametrize("part", [ToyConfig(), VideosConfig(), IdxConfig(), FramesConfig(), EncoderConfig("small")])
def test_the_defaults_are_nobodys(tmp_path: Path, part: object) -> None:
    check_paths(tmp_path, part, "")


def test_results_go_into_runs_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to("/somebody/elses")
    for given, expected in {
        "runs/pong/dqn/s0": "runs/pong/dqn/s0",
        str(tmp_path / "runs" / "a"): str(tmp_path / "runs" / "a"),
        "zoo/pong-dqn": "runs/evaluations/zoo/pong-dqn",
        "zoo/../runs/../zoo/pong-dqn": "runs/evaluations/zoo/pong-dqn",
        str(SHIPPED / "zoo" / "pong-dqn"): "runs/evaluations/zoo/pong-dqn",
        "/data/s0": "runs/evaluations/data/s0",
        "runs/link": "runs/evaluations/somebody/elses",
        "runs/../../x": f"runs/evaluations{tmp_path.parent}/x",
    }.items():
        assert results_folder(Path(given)) == Path(expected)


def test_the_name_of_a_recording_leads_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "data" / "frames" / "cartpole_..").mkdir(parents=True)
    (tmp_path / "a" / "data" / "victim-random-12000-s0").mkdir()
    (tmp_path / "a" / "data" / "victim-random-12000-s0" / "source.json").write_text("[]")
    monkeypatch.chdir(tmp_path / "a")
    with pytest.raises(ValueError, match="unknown task"):
        build_source(FramesConfig(), DmcConfig(task="../../../victim"), 0)


def pretraining(source: SourceConfig) -> PretrainConfig:
    return PretrainConfig(source, ToyConfig(), EncoderConfig("small"), run_help.hard(Path("x")).aux)


@pytest.mark.parametrize("source", [s for s in PARTS.values() if isinstance(s, SourceConfig)])
def test_a_probe_does_not_read_where_a_foreign_pretraining_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: SourceConfig
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probing, "build_source", lambda *_: pytest.fail("the source was built"))
    write_config(pretraining(source), tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="give source="):
        probing.build_probing(ProbeConfig(str(tmp_path), {}))
