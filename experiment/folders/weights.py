"""Weights on disk: safetensors files with the network's shapes in their header, and files of torchvision's networks.

Reading a file never executes code.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from gymnasium.spaces import Box, Discrete
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from agents import Agent
from agents.base import acting_weights
from encoders import Encoder
from encoders.backbones import CLASSES, torchvision_names
from harness.errors import first_line
from harness.files import open_regular, replacing

LARGEST = 1 << 30  # bytes of a file of weights
UNREADABLE = (  # errors of torch.load for damaged files
    ArithmeticError,
    AssertionError,
    AttributeError,
    BadZipFile,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    UnpicklingError,
    ValueError,
    struct.error,
)
HEADER = "network"  # entry of the metadata
PICKLED = {".pt", ".pth"}  # endings of what torch.save writes
ENCODER = "encoder."  # prefix of the encoder's weights among those of an agent
SEPARATE = "suite.encoders."  # prefix of the weights of auxiliary tasks' own encoders


def export_agent(agent: Agent, action_space: Discrete | Box, run_dir: Path) -> None:
    """Write `agent.safetensors` and `encoder.safetensors`, and `encoder-<task>.safetensors` for tasks with their own.

    Files are replaced atomically. A file that already holds the same weights is left alone.
    """
    weights, shapes = agent.acting_weights(), shapes_of(agent.encoder, action_space) | {"goal_dim": agent.goal_dim}
    _export(weights, run_dir / "agent.safetensors", shapes)
    files = {ENCODER: "encoder.safetensors"}
    tasks = sorted({n.removeprefix(SEPARATE).partition(".")[0] for n in weights if n.startswith(SEPARATE)})
    files |= {f"{SEPARATE}{task}.": f"encoder-{task}.safetensors" for task in tasks}
    for prefix, file in files.items():
        encoder = {n.removeprefix(prefix): tensor for n, tensor in weights.items() if n.startswith(prefix)}
        _export(encoder, run_dir / file, shapes)


def export_encoder(encoder: Encoder, run_dir: Path) -> None:
    """Write `encoder.safetensors` into the run folder, atomically, unless it already holds the same weights."""
    _export(acting_weights(encoder), run_dir / "encoder.safetensors", shapes_of(encoder))


def _export(weights: dict[str, torch.Tensor], path: Path, shapes: Mapping[str, Any]) -> None:
    try:
        if read_weights(path)[1].get("sha256") == checksum(weights):
            return
    except ValueError:  # missing, torn or damaged
        pass
    write_weights(weights, path, shapes)


def shapes_of(encoder: Encoder, action_space: Discrete | Box | None = None) -> dict[str, Any]:
    """Shapes for the header of exported weights: `obs_shape` (C, H, W), and `num_actions` or `action_shape`.

    With them an agent can be loaded without building its environment.
    """
    shapes: dict[str, Any] = {"obs_shape": encoder.obs_shape}
    match action_space:
        case Discrete():
            shapes["num_actions"] = int(action_space.n)
        case Box():
            shapes["action_shape"] = action_space.shape
    return shapes


def read_shapes(path: Path) -> tuple[tuple[int, int, int], Discrete | Box, int]:
    """Observation shape (C, H, W), action space and `goal_dim` of the agent in a file that `export_agent` wrote.

    Raises:
        ValueError: the file is missing or damaged, or its header lacks them.
    """
    header = read_weights(path)[1]
    try:
        channels, height, width = map(int, header["obs_shape"])
        space: Discrete | Box
        if "num_actions" in header:
            space = Discrete(int(header["num_actions"]))
        else:
            space = Box(-1, 1, tuple(map(int, header["action_shape"])))
        return (channels, height, width), space, int(header.get("goal_dim", 0))
    except (ArithmeticError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say for which observations and actions it is: {error!r}") from error


def load_encoder(encoder: Encoder, path: Path, task: str = "") -> Path:
    """Load an encoder from a file, a run folder or a folder of zoo/.

    Args:
        path: the file or folder. In a folder, `encoder.safetensors` is read, or else part of `agent.safetensors`.
        task: in a folder, load the own encoder of this auxiliary task.

    Returns:
        The file that was read.

    Raises:
        ValueError: as `load_weights`.
    """
    if not path.is_dir():
        load_weights(encoder, path)
        return path
    alone, agent = path / f"encoder{task and '-'}{task}.safetensors", path / "agent.safetensors"
    if agent.is_file() and not alone.is_file():
        load_weights(encoder, agent, prefix=f"{SEPARATE}{task}." if task else ENCODER)
        return agent
    load_weights(encoder, alone)
    return alone


def load_weights(module: torch.nn.Module, path: Path, prefix: str = "") -> None:
    """Load a file into a module: a whole encoder, torchvision's part of one, or the weights with which an agent acts.

    Args:
        prefix: of the module's names in the file; other names are ignored.

    Raises:
        ValueError: the file is missing, damaged, or of another network; the message names the file and the tensor.
    """
    held = read_pickled(path) if path.suffix in PICKLED else read_weights(path)[0]
    weights = {n.removeprefix(prefix): t for n, t in held.items() if n.startswith(prefix)}
    wanted = module.acting_weights() if isinstance(module, Agent) else module.state_dict()
    try:
        if (names := torchvision_names(wanted)) and not wanted.keys() & weights.keys():
            weights = _completed(wanted, names, weights)
        check_network(wanted, weights)
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error
    if isinstance(module, Agent):
        module.load_acting_weights(weights)
    else:
        module.load_state_dict(weights)


def _completed(
    wanted: Mapping[str, torch.Tensor], names: Mapping[str, str], weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The state of an encoder with torchvision's `weights` under our `names`, and its own where torchvision has none.

    The classifier is left out. Batch normalisations count as measured, which old files do not record.

    Raises:
        ValueError: the first convolution reads another number of channels.
    """
    first, ours = next(iter(names.items()))
    held, channels = weights.get(first, wanted[ours]), wanted[ours].shape[1]
    if held.ndim == 4 and held.shape[1] != channels:
        raise ValueError(
            f"of a network for {held.shape[1]} channels, but observations have {channels}: single RGB frames have 3 "
            "(grayscale=false frame_stack=1)"
        )
    named = {names.get(n, n): tensor for n, tensor in weights.items() if not CLASSES.fullmatch(n)}
    measured = {n: torch.ones_like(t) for n, t in wanted.items() if n.endswith("num_batches_tracked")}
    return {n: wanted[n] for n in wanted.keys() - set(names.values())} | named | measured


def check_network(wanted: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError, with the first tensor that differs, unless `weights` has the names and shapes of `wanted`."""
    expected, found = ({n: tuple(t.shape) for n, t in tensors.items()} for tensors in (wanted, weights))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            hint = f": encoder.standardize is {name in found} there" if "pixel_moments" in name else ""
            raise ValueError(
                f"of another network: {name} is {found.get(name, 'missing')} there "
                f"and {expected.get(name, 'missing')} in the network of this config{hint}"
            )


def write_weights(weights: dict[str, torch.Tensor], path: Path, shapes: Mapping[str, Any]) -> None:
    """Write a safetensors file atomically, with SHA-256 and shapes of the network in its header."""
    header = json.dumps({**shapes, "sha256": checksum(weights)})  # one entry: the order of several is not kept
    with replacing(path) as temporary:  # not by save_file, which lets nobody else read
        temporary.write_bytes(save(weights, {HEADER: header}))


def read_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and header of a safetensors file, verified.

    Raises:
        ValueError: the file is missing or damaged; the message names it.
    """
    try:
        open_regular(path, LARGEST).close()
        with safe_open(path, "pt") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 — not iterable
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            if not isinstance(header, dict):
                raise ValueError("its header is not an object")
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not a readable safetensors file: its header is too deep") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if header.get("sha256") not in (None, checksum(held)):
        raise ValueError(f"{path} is damaged: its tensors do not match the sha256 that they were written with")
    return held, header


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name of a state dict that `torch.save` wrote; nothing else is unpickled.

    Raises:
        ValueError: the file is missing, damaged, too large or something else; the message names it.
    """
    try:
        with open_regular(path, LARGEST) as file:
            if is_zipfile(file) and sum(entry.file_size for entry in ZipFile(file).infolist()) > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
            file.seek(0)
            held = torch.load(file, "cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist") from error
    except UNREADABLE as error:
        raise ValueError(f"{path} is not a readable file of weights: {first_line(error)}") from error
    if not isinstance(held, Mapping) or not all(isinstance(n, str) and _is_plain(t) for n, t in held.items()):
        raise ValueError(f"{path} holds no state dict: tensors by name, of torch.save(network.state_dict(), path)")
    return dict(held)


def _is_plain(value: object) -> bool:
    if not isinstance(value, torch.Tensor) or value.is_quantized:
        return False
    return value.layout is torch.strided and value.device.type == "cpu"


def checksum(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes, for the header of exported weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
