"""Connect to a Ray cluster, with one clear line for each way in which that fails."""

import os
import socket
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import first_line

CONNECT_SECONDS = 5


def connect(group: str, address: str | None, **local: Any) -> Any:
    """The module `ray`, connected to the cluster at `address`, or to a new cluster on this machine alone.

    Args:
        group: the config group that asks for it, for messages.
        address: `auto`, `host:port`, or None for a new cluster.
        local: settings of a new cluster.

    Raises:
        ValueError: Ray is missing, or the cluster cannot be reached.
    """
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise ValueError(f"{group}=ray needs Ray: pip install 'ray>=2.40,<3'") from error
    try:
        _check_reachable(address)
        settings = {} if address else {"include_dashboard": False, **local}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **settings)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{group}.address={address}: no Ray cluster answers: {first_line(error)}") from error
    return ray


def check_nodes(ray: Any, key: str, resource: str, wanted: float, count: int = 1) -> None:
    """Leave the cluster and raise ValueError unless its nodes hold `count` times `wanted` of a resource.

    Args:
        key: the config key of `wanted`, for messages.
        resource: CPU or GPU.
    """
    nodes = [node["Resources"].get(resource, 0) for node in ray.nodes() if node["Alive"]]
    if not wanted or sum(int(size / wanted) for size in nodes) >= count:
        return
    ray.shutdown()
    if wanted > max(nodes):
        raise ValueError(f"{key}={wanted:g}: the largest node of the Ray cluster has {max(nodes):g}")
    raise ValueError(f"{key}={wanted:g} for each of {count}: the Ray cluster has {sum(nodes):g} {resource}s")


def check_shared(folder: str, group: str) -> None:
    """Raise ValueError unless `folder`, the working folder of the command, is on this node too."""
    if not Path(folder).is_dir():
        raise ValueError(
            f"{folder} does not exist on {os.uname().nodename}: {group}=ray needs a folder that all nodes share"
        )


def _check_reachable(address: str | None) -> None:
    """Raise OSError unless something listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
