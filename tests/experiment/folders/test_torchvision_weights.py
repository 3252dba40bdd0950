"""Files in torchvision's naming: what loads, and what is refused in one line."""

import pickle
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from agents import DQNConfig
from aux_tasks import TaskConfig
from configs.schema import Config, PretrainConfig
from configs.sources import BallsConfig
from encoders import ENCODERS, Encoder, EncoderConfig
from encoders.backbones import _resnet, torchvision_names
from envs import ToyConfig
from experiment.folders import weights as module
from experiment.folders.weights import export_encoder, load_encoder
from experiment.pretraining.run import build_pretraining
from experiment.training.build import build, build_initial_encoder
from replay import ReplayConfig

SHAPE = (3, 32, 32)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "tiny", lambda channels: _resnet(channels, (3, 3), (1, 1), widening=1))


def tiny(shape: tuple[int, int, int] = SHAPE, seed: int = 0, frame_stack: int = 1, **config: Any) -> Encoder:
    return build_initial_encoder(EncoderConfig("tiny", **config), shape, seed, frame_stack)


def state() -> dict[str, Tensor]:
    """Of a network of torchvision's: random statistics, and a classifier above."""
    torch.manual_seed(5)
    own = tiny(seed=3, layer_norm=False).state_dict()
    found = {theirs: own[ours].contiguous() for theirs, ours in torchvision_names(own).items()}
    found |= {name: torch.rand(64) for name in ("bn1.running_mean", "bn1.running_var")}
    return found | {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("ending", ["pth", "safetensors", "old.pth"])
def test_both_kinds_of_file_load_and_what_stands_above_keeps_its_own_weights(ending: str, tmp_path: Path) -> None:
    held, path = state(), tmp_path / f"w.{ending}"
    if ending == "old.pth":  # of a time when neither this entry nor a zip was known
        held = {name: tensor for name, tensor in held.items() if "num_batches" not in name}
    if ending == "safetensors":
        save_file(held, path)
    else:
        torch.save(held, path, _use_new_zipfile_serialization=ending == "pth")
    encoder, fresh = (tiny(init=init, feature_dim=5) for init in (str(path), None))
    names, own = torchvision_names(fresh.state_dict()), encoder.state_dict()
    assert own["trunk.bn1.num_batches_tracked"] == 1  # its statistics are those of data: no batch measures them again
    for theirs, ours in names.items():
        if "num_batches" not in theirs:
            assert torch.equal(own[ours], held[theirs])
    above = {name: tensor for name, tensor in fresh.state_dict().items() if name not in names.values()}
    assert above
    assert all(torch.equal(own[name], tensor) for name, tensor in above.items())
    export_encoder(encoder, tmp_path)  # and the file of a run in our naming still loads
    other = tiny(seed=7, feature_dim=5)
    assert load_encoder(other, tmp_path) == tmp_path / "encoder.safetensors"
    assert all(torch.equal(tensor, own[name]) for name, tensor in other.state_dict().items())


class Code:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("executed",)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            lambda s: s | {"layer3.0.conv1.weight": torch.zeros(1)},
            "network: layer3.0.conv1.weight is .1,. there",
        ),
        (
            lambda s: {n: s[n] for n in s if n != "bn1.bias"},
            r"network: trunk.bn1.bias is missing there and \(64,",
        ),
        (lambda s: s | {"bn1.bias": torch.zeros(9)}, r"another network: trunk.bn1.bias is \(9,\) there and \(64,\)"),
        (
            lambda s: s | {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            "for 1 channels, but observations have 3",
        ),
        (lambda s: {"state_dict": s}, "holds no state dict: tensors by name"),
        (lambda s: [*s.values()], "holds no state dict"),
        (lambda s: s | {"bn1.bias": torch.zeros(64).to_sparse()}, "holds no state dict"),
        (lambda s: s | {"bn1.bias": torch.zeros(64, device="meta")}, "holds no state dict"),
        (lambda s: s | {"bn1.bias": Code()}, "is not a readable file of weights: Weights only load failed"),
        (lambda s: nn.Linear(2, 2), "is not a readable file of weights: Weights only load failed"),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(
    held: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(held(state()), path := tmp_path / "w.pth")
    encoder = tiny()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=message) as raised:
        load_encoder(encoder, path)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)
    assert "executed" not in capsys.readouterr().out
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_a_broken_or_large_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(state(), whole := tmp_path / "whole.pth")
    (tmp_path / "torn.pth").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Code(), protocol=2))
    (tmp_path / "empty.pth").touch()
    (tmp_path / "folder.pth").mkdir()
    for name in ("torn", "pickle", "empty"):
        with pytest.raises(ValueError, match=f"{name}.pth is not a readable file of weights: "):
            load_encoder(tiny(), tmp_path / f"{name}.pth")
    with pytest.raises(ValueError, match=r"gone\.pth does not exist"):
        load_encoder(tiny(), tmp_path / "gone.pth")
    monkeypatch.setattr(module, "LARGEST", whole.stat().st_size)
    load_encoder(tiny(), whole)
    monkeypatch.setattr(module, "LARGEST", whole.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"whole\.pth"):
        load_encoder(tiny(), whole)


def test_names_of_other_networks_are_not_taken_for_torchvisions(tmp_path: Path) -> None:
    torch.save(state(), path := tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"network: bn1.bias is \(64,\) there and missing"):
        build_initial_encoder(EncoderConfig("small", init=str(path)), SHAPE, 0)
    with pytest.raises(ValueError, match="for 3 channels, but observations have 1: single RGB frames have 3"):
        tiny((1, 32, 32), init=str(path))


@pytest.mark.parametrize("stack", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_gray_frames_are_not_taken_for_colours(channels: int, stack: int, tmp_path: Path) -> None:
    shape = (channels * stack, 32, 32)
    assert build_initial_encoder(EncoderConfig("small"), shape, 0, stack).obs_shape == shape
    if channels == 1 and stack in (3, 6):
        torch.save(state(), path := tmp_path / "w.pth")
        for init in (None, str(path)):
            with pytest.raises(ValueError, match=r"^encoder=tiny would take three gray frames for one in RGB: give"):
                tiny(shape, frame_stack=stack, init=init)
    else:
        assert tiny(shape, frame_stack=stack).trunk[0].moments.shape[1] == (channels * stack if channels == 3 else 1)


@pytest.mark.parametrize("stack", [3, 4])
def test_a_run_says_how_many_gray_frames_it_stacks(stack: int) -> None:
    encoder, shared = EncoderConfig("tiny"), {"frame_stack": stack, "device": "cpu"}
    training = Config(ToyConfig(), DQNConfig(), encoder, ReplayConfig(capacity=100), **shared)
    pretraining = PretrainConfig(BallsConfig(episodes=4, length=8), ToyConfig(), encoder, {"rotation": TaskConfig()})
    for function, config in ((build, training), (build_pretraining, replace(pretraining, **shared))):
        with pytest.raises(ValueError, match="three gray frames") if stack == 3 else nullcontext():
            function(config)
