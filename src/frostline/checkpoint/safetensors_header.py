"""Writing the header of a safetensors file, which gives the place of each tensor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from frostline.checkpoint.safetensors_file import DTYPES
from frostline.checkpoint.stored import StoredTensor

# Readers of the format refuse a longer header.
MOST_BYTES = 100_000_000
_CODES = {dtype: code for code, dtype in DTYPES.items()}
# Dtypes smaller than a byte, which NumPy does not have.
_CODES |= {code.lower(): code for code in ("F4", "F6_E2M3", "F6_E3M2")}


def has_code(dtype: str) -> bool:
    """Whether the format can store a dtype.

    Example:
        >>> has_code("bfloat16"), has_code("complex128")
        (True, False)
    """
    return dtype in _CODES


def header(tensors: Iterable[StoredTensor], metadata: Mapping[str, str]) -> bytes:
    """Returns the header of a file with these tensors, one after another; equal tensors give equal bytes.

    Example:
        >>> header([StoredTensor("head.codes", (3,), "uint8", 3)], {})[8:].strip()
        b'{"head.codes":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}'
    """
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.nbytes
        offsets = [begin, end]
        entries[tensor.path] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    # The data begins at a multiple of 8.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def in_order(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """Sorts tensors by the size of their elements, large ones first, then by name, so that each tensor is aligned."""
    return sorted(tensors, key=lambda tensor: (-_itemsize(tensor), tensor.path))


def _itemsize(tensor: StoredTensor) -> int:
    return tensor.nbytes // tensor.size if tensor.size else 0
