"""NaN and infinity put into a run, from within its process."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos_help import Program

import agents.base
import pretrain
from envs import BitFlipVector, PointMassVector, ToyVector
from experiment.folders.weights import read_weights
from experiment.pretraining import run as pretraining
from harness.checkpoint import load
from harness.finite import check_finite


def poison(program: Program, where: str, value: float, at: int) -> None:
    """Make loss, weight or reward `value` from update or step `at` of this process on."""
    module: Any = pretraining if program.command == "pretrain" else agents.base
    if where == "loss":
        module.weighted_sum = _at(at, module.weighted_sum, lambda loss, *_: loss * value)
    elif where == "reward":
        for vector in (ToyVector, PointMassVector, BitFlipVector):
            vector.step = _at(at, vector.step, lambda step, *_: replace(step, reward=step.reward + value))
    elif program.command == "pretrain":
        pretrain.update = _at(at, pretrain.update, lambda done, parts, *_: _spoil(parts.suite, value, done))
    else:
        agents.base.Agent.learn = _at(at, agents.base.Agent.learn, lambda done, agent, *_: _spoil(agent, value, done))


def _at(number: int, function: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose result `change` changes from a call on: the first may be a rehearsal."""
    calls = 0

    def changed(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = function(*arguments, **named)
        return change(result, *arguments) if calls >= number else result

    return changed


def _spoil(module: Any, value: float, done: Any) -> Any:
    """Put the value into the last float tensor of a module: of an average, a target or a head."""
    [*_, tensor] = [tensor for tensor in module.state_dict().values() if tensor.is_floating_point() and tensor.numel()]
    tensor.fill_(value)
    return done


def check_finite_folder(run_dir: Path) -> None:
    """Raise NonFiniteError where a checkpoint or exported weights hold NaN or infinity."""
    for path in (run_dir / "checkpoints").glob("step_*"):
        check_finite(load(path).state["parts"], load(path).step)
    for path in run_dir.glob("*.safetensors"):
        check_finite(read_weights(path)[0], 0)
