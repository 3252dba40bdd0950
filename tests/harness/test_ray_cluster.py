import sys
from types import SimpleNamespace

import pytest

from harness.ray_cluster import check_nodes, check_shared, connect

NODES = [{"Alive": True, "Resources": {"CPU": size}} for size in (1.0, 3.0)] + [{"Alive": False}]


@pytest.mark.parametrize(
    ("wanted", "times", "named"),
    [(2, 2, "2 for each of 2: the Ray cluster has 4 CPUs"), (4, 1, "4: the largest node .* 3")],
)
def test_a_cluster_that_is_too_small_is_left_with_one_line(wanted, times, named):
    left = []
    ray = SimpleNamespace(nodes=lambda: NODES, shutdown=lambda: left.append(True))
    check_nodes(ray, "collect.cpus", "CPU", 1, 4)
    assert not left
    with pytest.raises(ValueError, match=f"collect.cpus={named}"):
        check_nodes(ray, "collect.cpus", "CPU", wanted, times)
    assert left


def test_without_ray_or_its_cluster_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="collect=ray needs Ray: pip install"):
        connect("collect", None)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    with pytest.raises(ValueError, match=r"collect.address=127.0.0.1:1: no Ray cluster answers: .*refused"):
        connect("collect", "127.0.0.1:1")


def test_a_folder_that_this_node_lacks_is_one_line(tmp_path):
    check_shared(str(tmp_path), "sweep")
    with pytest.raises(ValueError, match=r"gone does not exist on .*: sweep=ray needs a folder that all nodes share"):
        check_shared(str(tmp_path / "gone"), "sweep")
