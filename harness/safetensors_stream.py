"""Write safetensors files as a stream that is hashed and synced. The library's own function does none of this."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from harness.tree import Array, dtype_code

Record: TypeAlias = dict[str, Any]  # {"size": bytes, "sha256": hex}

_CHUNK = 1 << 24


def _header(arrays: Mapping[str, Array]) -> bytes:
    """The safetensors header, padded so that the data start at a multiple of 8, as the format requires."""
    entries, end = {}, 0
    for key, array in arrays.items():
        start, end = end, end + array.nbytes
        entries[key] = {"dtype": dtype_code(array), "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def file_size(arrays: Mapping[str, Array]) -> int:
    """Bytes of a safetensors file of the arrays."""
    return len(_header(arrays)) + sum(array.nbytes for array in arrays.values())


def _data(array: Array) -> memoryview:
    """The bytes in C order; copied only if the array is not contiguous or on another device."""
    if isinstance(array, Tensor):
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> Record:
    """Write and hash in one pass, in chunks, so that a memory-mapped array need not fit in memory."""
    size, digest = 0, hashlib.sha256()
    with path.open("xb") as file:
        for part in parts:
            for start in range(0, len(part), _CHUNK):
                chunk = part[start : start + _CHUNK]
                digest.update(chunk)
                size += file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> Record:
    """Write a safetensors file."""
    # Widest dtype first, so that every array is aligned for a memory map.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))
    return write_parts(path, chain([_header(arrays)], map(_data, arrays.values())))
