"""Auxiliary tasks: self-supervised losses on a shared encoder, one class each, chosen by name in a config."""

from typing import TYPE_CHECKING

from aux_tasks.config import TaskConfig
from aux_tasks.registry import TASKS
from harness.lazy import lazily

if TYPE_CHECKING:
    from aux_tasks.base import AuxOutput, AuxTask, BonusTask, TaskSetting, classify
    from aux_tasks.suite import AuxSuite
else:
    __getattr__ = lazily(
        {
            "aux_tasks.base": ("AuxOutput", "AuxTask", "BonusTask", "TaskSetting", "classify"),
            "aux_tasks.suite": ("AuxSuite",),
        }
    )

__all__ = ["TASKS", "AuxOutput", "AuxSuite", "AuxTask", "BonusTask", "TaskConfig", "TaskSetting", "classify"]
