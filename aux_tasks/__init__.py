"""Auxiliary tasks: self-supervised losses on a shared encoder, one class each, chosen by name in a config."""

from aux_tasks.base import AuxOutput, AuxTask, TaskSetting
from aux_tasks.registry import TASKS
from aux_tasks.suite import AuxSuite, TaskConfig

__all__ = ["TASKS", "AuxOutput", "AuxSuite", "AuxTask", "TaskConfig", "TaskSetting"]
