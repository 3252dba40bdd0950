"""Any set of auxiliary tasks as one: weights, schedules, the heads' optimiser, metrics."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxTask, BonusTask, Examples, TaskSetting
from aux_tasks.config import TaskConfig, options_of
from aux_tasks.registry import TASKS
from encoders import Encoder
from harness.suggest import nearest
from replay import Batch

ADVERSARY_LEARNING_RATE = 2e-4
GAME_BETAS = (0.5, 0.999)  # of both sides: with 0.9 they answer moves long past (Radford et al. 2016, DCGAN)


class AuxSuite(nn.Module):
    """The auxiliary tasks of a run; none is a valid set.

    A task with `encoder=separate` trains an encoder of its own, on the observations as the replay has them, and not the
    agent's: what it does alone.

    Args:
        tasks: config of each task by name.
        setting: what the tasks may know about the run.
        learning_rate, adam_eps, max_grad_norm: of the heads' own optimiser.

    Raises:
        ValueError: an unknown task or option, or one that does not fit the run.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        setting: TaskSetting,
        *,
        learning_rate: float,
        adam_eps: float,
        max_grad_norm: float,
    ) -> None:
        super().__init__()
        self.configs, self.generator, self.max_grad_norm = dict(tasks), setting.generator, max_grad_norm
        built = {}
        for name, config in tasks.items():
            _check_names(name, config.options)
            try:
                built[name] = TASKS[name](setting, **config.options)
            except (RuntimeError, TypeError, ValueError) as error:
                raise ValueError(f"aux.{name}: {error}") from error
            if config.bonus_weight and not (isinstance(built[name], BonusTask) and built[name].offers_bonus):
                able = [task for task in TASKS if issubclass(TASKS[task], BonusTask)]
                text = "no bonus with these options" if name in able else f"only {', '.join(able)} offer a bonus"
                raise ValueError(f"aux.{name}.bonus_weight={config.bonus_weight}: {text}")
        self.tasks = nn.ModuleDict(built)
        self.explorers = [name for name, config in tasks.items() if config.bonus_weight]
        largest = torch.zeros(len(self.explorers))  # mean of a batch so far, of the bonus of each
        self.register_buffer("largest_bonus", largest, persistent=bool(self.explorers))
        alone = [name for name, config in tasks.items() if config.encoder == "separate"]
        self.encoders = nn.ModuleDict({name: deepcopy(setting.encoder).requires_grad_(True) for name in alone})
        rivals = [p for task in built.values() if task.adversary is not None for p in task.adversary.parameters()]
        heads = [group for task in built.values() if (group := head_group(task))["params"]]
        self.heads = [p for group in heads for p in group["params"]]
        heads += [{"params": list(encoder.parameters())} for encoder in self.encoders.values()]
        self.optimizer = torch.optim.Adam(heads, lr=learning_rate, eps=adam_eps, fused=True) if heads else None
        self.adversary_optimizer = (
            torch.optim.Adam(rivals, lr=ADVERSARY_LEARNING_RATE, betas=GAME_BETAS, fused=True) if rivals else None
        )

    def __iter__(self) -> Iterator[tuple[str, AuxTask]]:
        for name, task in self.tasks.items():
            assert isinstance(task, AuxTask)
            yield name, task

    def encoder_of(self, name: str, shared: Encoder) -> Encoder:
        """The encoder that a task trains."""
        if name not in self.encoders:
            return shared
        own = self.encoders[name]
        assert isinstance(own, Encoder)
        return own

    @property
    def reads(self) -> frozenset[str]:
        """Batch fields that the tasks need."""
        return frozenset().union(*(task.reads for _, task in self))

    @property
    def clip_length(self) -> int:
        """Observations in the longest clip that a task needs."""
        return max((task.clip_length for _, task in self), default=0)

    def schedules(self) -> dict[str, Callable[[int], float]]:
        """The weight of each loss term as a function of the agent step."""
        return {name: config.at for name, config in self.configs.items()}

    def losses(self, batch: Batch, features: Tensor, encoder: Encoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute every task's loss; nothing but the random stream moves.

        Args:
            batch: the batch of B samples.
            features: (B, Z) of `batch.obs`, read by tasks whose `reads` holds "features".
            encoder: the shared encoder.

        Returns:
            Unreduced losses (B,) by task, and detached scalars by TensorBoard tag.
        """
        terms, metrics = {}, {}
        for name, task in self:
            own = self.encoder_of(name, encoder)
            seen = own(batch.obs) if own is not encoder and "features" in task.reads else features
            output = task.loss(batch, seen, own)
            terms[name] = output.loss
            metrics[f"aux/{name}/loss"] = output.loss.detach().mean()
            metrics |= {f"aux/{name}/{key}": value for key, value in output.metrics.items()}
        return terms, metrics

    @torch.no_grad()
    def bonus(self, batch: Batch, features: Tensor, encoder: Encoder, *, learning: bool) -> Tensor | None:
        """Return what the tasks add to the agent's rewards (B,) for exploration; None where none has a weight for it.

        Each bonus is divided by the largest mean of a batch so far, as Stadie et al. 2015 divide by the largest error:
        it begins near 1 in any unit, and falls as the world becomes known. The other arguments are those of `losses`.

        Args:
            learning: whether the batch counts for that largest mean.
        """
        if not self.explorers:
            return None
        total = torch.zeros_like(batch.nstep_reward)
        for name, largest in zip(self.explorers, self.get_buffer("largest_bonus").unbind(), strict=True):
            own, task = self.encoder_of(name, encoder), self.tasks[name]
            assert isinstance(task, BonusTask)
            bonus = task.bonus(batch, features if own is encoder else own(batch.obs), own)
            scale = torch.maximum(largest, bonus.mean())
            if learning:
                largest.copy_(scale)
            total += self.configs[name].bonus_weight * bonus / scale.clamp_min(1e-8)
        return total

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Of the heads and of their adversaries, as far as there are any."""
        return [optimizer for optimizer in (self.optimizer, self.adversary_optimizer) if optimizer]

    def after_step(self, batch: Batch, encoder: Encoder) -> None:
        """Step the heads by the gradients that the weighted sum left, then the adversaries, then each task's own state.

        Args:
            batch: the batch of that sum.
            encoder: the shared encoder, already moved.
        """
        if self.optimizer is not None:
            for moved in (self.heads, *(encoder.parameters() for encoder in self.encoders.values())):
                nn.utils.clip_grad_norm_(moved, self.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.adversary_optimizer is not None:
            self.adversary_optimizer.zero_grad()  # of what the heads' losses left there
            rivals = [(name, task) for name, task in self if task.adversary is not None]
            losses = [task.adversary_loss(batch, self.encoder_of(name, encoder)) for name, task in rivals]
            sum(losses).backward()  # type: ignore[union-attr]
            self.adversary_optimizer.step()
        for name, task in self:
            task.after_step(batch, self.encoder_of(name, encoder))
        for name in self.explorers:
            explorer = self.tasks[name]
            assert isinstance(explorer, BonusTask)
            explorer.count(batch, self.encoder_of(name, encoder))

    def examples(self, batch: Batch, encoder: Encoder) -> dict[str, Examples]:
        """Return what the heads see and answer on a batch, by task, for tasks that can show it. No stream moves."""
        with self.preserved_streams():
            shown = {name: task.examples(batch, self.encoder_of(name, encoder)) for name, task in self}
        return {name: seen for name, seen in shown.items() if seen}

    @contextmanager
    def preserved_streams(self) -> Iterator[None]:
        """Restore the state of the tasks' generator at the end: the losses computed within change nothing."""
        state = self.generator.get_state()
        try:
            yield
        finally:
            self.generator.set_state(state)


def head_group(task: AuxTask) -> dict[str, Any]:
    """Return Adam's parameter group of a task's head: its parameters but the adversary's, with their settings."""
    rivals = set() if task.adversary is None else set(task.adversary.parameters())
    return {
        "params": [p for p in task.parameters() if p.requires_grad and p not in rivals],
        "weight_decay": task.weight_decay,
        "betas": GAME_BETAS if rivals else (0.9, 0.999),
    }


def _check_names(task: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError, with the name that is close or all there are, unless the task and its options exist."""
    if task not in TASKS:
        raise ValueError(f"unknown auxiliary task {task!r}: {nearest(task, TASKS)}")
    known = options_of(TASKS[task])
    for option in options.keys() - known.keys():
        raise ValueError(f"unknown option aux.{task}.options.{option}: {nearest(option, known)}")
