"""Typed configuration: the schema, the Hydra groups, and how a config becomes a run's parts."""

from configs.schema import Config, register

__all__ = ["Config", "register"]
