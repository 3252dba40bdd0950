"""How much a task weighs, and the options of its class. Nothing here needs torch."""

from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any, get_type_hints

from harness.checks import check_choice, check_least
from harness.schedules import linear

ENCODERS = ("shared", "separate")


@dataclass(frozen=True)
class TaskConfig:
    """How much one task weighs, and the options of its class."""

    # factor of the task's loss in the sum; the default differs between tasks; 0 gives the run without the task
    weight: float = 1.0
    final_weight: float | None = None  # reached linearly after `decay_steps`; null: the weight is constant
    decay_steps: int = 1_000_000  # agent steps until `final_weight` is reached
    # weight of its exploration bonus in the reward of the agent, of tasks that have one; 0: no bonus
    bonus_weight: float = 0.0
    # shared: the task trains the agent's encoder; separate: one of its own, which begins equal and never acts
    encoder: str = "shared"
    options: dict[str, Any] = field(default_factory=dict)  # arguments of the task's class

    def __post_init__(self) -> None:
        check_least(0, weight=self.weight, final_weight=self.final_weight, bonus_weight=self.bonus_weight)
        check_least(1, decay_steps=self.decay_steps)
        check_choice("encoder", self.encoder, ENCODERS)

    def at(self, step: int) -> float:
        """Return the weight at an agent step."""
        final = self.weight if self.final_weight is None else self.final_weight
        return linear(self.weight, final, step, self.decay_steps)


def options_of(task: type) -> dict[str, tuple[Parameter, Any]]:
    """Return the options of a task, with their types.

    They are the parameters of its constructor after `setting`, and the keyword-only ones of its base classes.

    Raises:
        ValueError: one has no default or no type.
    """
    found: dict[str, tuple[Parameter, Any]] = {}
    constructors = [vars(kind)["__init__"] for kind in task.__mro__ if "__init__" in vars(kind)]
    for constructor in constructors:
        hints, own = get_type_hints(constructor), constructor is constructors[0]
        for name, parameter in list(signature(constructor).parameters.items())[2:]:
            if parameter.kind is Parameter.KEYWORD_ONLY or (own and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD):
                if parameter.default is Parameter.empty or name not in hints:
                    raise ValueError(f"{task.__qualname__}: its option {name!r} needs a type and a default")
                found.setdefault(name, (parameter, hints[name]))
    return found
