"""Any tree of state comes back as it was."""

import json
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from checkpoint_help import same
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.checkpoint import load, save
from harness.tree import Segment, decode, encode

TENSORS = [
    torch.tensor(3, dtype=torch.int64),
    torch.tensor([[1.5, -0.0, float("nan")]], dtype=torch.bfloat16),
    torch.zeros(0, 3, dtype=torch.float16),
    torch.tensor([True, False, True]),
    torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4).permute(2, 0, 1),
    torch.tensor([1 + 2j], dtype=torch.complex64),
    torch.nn.Parameter(torch.ones(2)).data,
]
dtypes = st.sampled_from(
    [f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (16, 32, 64)] + ["bool", "uint8"]
)
arrays = hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**127, 2**128), st.floats(), st.text(),
    arrays, st.sampled_from(TENSORS), st.sampled_from([np.float32(0.1), np.int64(-3), np.bool_(True)]),
)  # fmt: skip
trees = st.recursive(
    leaves,
    lambda child: (
        st.lists(child, max_size=4)
        | st.lists(child, max_size=4).map(tuple)
        | st.dictionaries(st.integers() | st.text(), child, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
@settings(max_examples=100, deadline=None)
def test_encode_round_trip(tree: Any) -> None:
    structure, flat = encode(tree)
    assert same(decode(json.loads(json.dumps(structure, allow_nan=False)), flat), tree)


@given(trees)
@settings(max_examples=25, deadline=None)
def test_file_round_trip(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    root = tmp_path_factory.mktemp("trees")
    path = save(root, 3, {"a": tree, "b": [tree]})
    read = load(path)
    assert (read.step, read.path, list(read.state)) == (3, path, ["a", "b"])
    assert same(read.state, {"a": tree, "b": [tree]})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"optim": [1, {2, 3}]}, "state/optim/1: a checkpoint cannot hold a set"),
        ({"a": {1.5: 0}}, "state/a: the key 1.5 is a float"),
        ({"a": {True: 0}}, "the key True is a bool"),
        ({"names": np.array(["a"])}, "state/names: a checkpoint cannot hold <U1"),
        ({"n": np.arange(3, dtype=">i4")}, "state/n: a checkpoint cannot hold >i4"),
        ({"s": torch.eye(3).to_sparse()}, "state/s: a checkpoint cannot hold torch.float32; use a dense one"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path: Path, tree: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        save(tmp_path / "run", 1, {"agent": tree})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".tmp-1", "manifest", "a\n"])
def test_names_that_are_no_file_names(tmp_path: Path, name: str) -> None:
    for state in ({name: 1}, {"replay": Segment(name, np.ones(2))}):
        with pytest.raises(ValueError, match="cannot name a file"):
            save(tmp_path, 1, state)
