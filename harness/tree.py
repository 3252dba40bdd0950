"""State as trees, which are split into a JSON structure and a flat dict of arrays, and rebuilt from them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = Tensor | NDArray[Any]
Tree: TypeAlias = Any  # None, bool, int, float, str, Array, numpy scalar, Segment, or dict, list, tuple of trees

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # names that may become file names
_CODES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "complex64": "C64",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Segment:
    """An immutable array. In one process, segments of the same `name` have the same bytes."""

    name: str  # letters, digits, "_", "-", "."; for example the row range
    array: Array


def encode(tree: Tree) -> tuple[Any, dict[str, Array]]:
    """Split a tree into a JSON structure and its arrays, which are neither copied nor moved.

    In the structure, scalars stand for themselves; everything else is a pair [tag, content]. Subclasses of dict, list,
    tuple and Tensor are rebuilt as the plain type, tensors on the CPU.

    Returns:
        The structure, and the arrays by key; the key of a segment is `segments/<name>`.

    Raises:
        TypeError: a checkpoint cannot hold a leaf, key or dtype; the message names its place in the tree.
    """
    arrays: dict[str, Array] = {}

    def leaf(array: Array, where: str, key: str | None = None) -> list[str]:
        dtype_code(array, where)
        key = key or str(len(arrays))
        arrays[key] = array
        return ["tensor" if isinstance(array, Tensor) else "array", key]

    def visit(node: Tree, where: str) -> Any:
        if node is None or type(node) in (bool, int, str):
            return node
        if type(node) is float:
            return node if math.isfinite(node) else ["float", repr(node)]
        if isinstance(node, dict):
            for key in node:
                if type(key) not in (int, str):
                    raise TypeError(f"{where}: the key {key!r} is a {type(key).__name__}; use an int or a str")
            return ["dict", [[key, visit(child, f"{where}/{key}")] for key, child in node.items()]]
        if isinstance(node, list | tuple):
            tag = "list" if isinstance(node, list) else "tuple"
            return [tag, [visit(child, f"{where}/{i}") for i, child in enumerate(node)]]
        if isinstance(node, Segment):
            check_name(node.name)
            return ["segment", [node.name, leaf(node.array, where, f"segments/{node.name}")]]
        if isinstance(node, np.generic):
            return ["scalar", leaf(np.asarray(node), where)]
        if isinstance(node, Tensor | np.ndarray):
            return leaf(node, where)
        raise TypeError(
            f"{where}: a checkpoint cannot hold a {type(node).__name__}; "
            "use dict, list, tuple, None, bool, int, float, str, a tensor or an array"
        )

    return visit(tree, "state"), arrays


def decode(structure: Any, arrays: Mapping[str, Array]) -> Tree:
    """Rebuild a tree from `encode`.

    Raises:
        ValueError, TypeError, KeyError: `encode` makes no such structure.
    """
    if not isinstance(structure, list):
        return structure
    tag, content = structure
    match tag:
        case "float":
            return float(content)
        case "list":
            return [decode(child, arrays) for child in content]
        case "tuple":
            return tuple(decode(child, arrays) for child in content)
        case "dict":
            return {key: decode(child, arrays) for key, child in content}
        case "segment":
            return Segment(content[0], decode(content[1], arrays))
        case "scalar":
            return decode(content, arrays)[()]
        case "array":
            array = arrays[content]
            return array.numpy() if isinstance(array, Tensor) else array
        case "tensor":
            return arrays[content]
    raise ValueError(f"unknown tag {tag!r}")


def check_name(name: str) -> None:
    """Raise ValueError unless `name` can be the stem of a file in a checkpoint."""
    if not NAME.fullmatch(name) or name == "manifest":
        raise ValueError(f"{name!r} cannot name a file of a checkpoint; use letters, digits, '_', '-' and '.'")


def dtype_code(array: Array, where: str = "state") -> str:
    """The safetensors code of the dtype, such as "F32"; TypeError for a dtype or layout without one."""
    code = _CODES.get(str(array.dtype).removeprefix("torch."))
    if code is None or (isinstance(array, Tensor) and array.layout != torch.strided):
        raise TypeError(f"{where}: a checkpoint cannot hold {array.dtype}; use a dense one of {', '.join(_CODES)}")
    return code
